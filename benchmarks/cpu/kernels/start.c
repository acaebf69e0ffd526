/* The program around the kernels: `kernels NAME ROUNDS [NAME ROUNDS]...` prints a digest a line for each.
 *
 * It needs no C library, only two system calls, so that it runs on a bare CPU as well as on a system.
 */
#include "kernel.h"

static long system_call(long number, long a, long b, long c) {
#if defined(__riscv)
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
#else
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#endif
}

#if defined(__riscv)
enum { SYS_WRITE = 64, SYS_EXIT = 93 };
#else
enum { SYS_WRITE = 1, SYS_EXIT = 60 };
#endif
enum { STANDARD_OUTPUT = 1, STANDARD_ERROR = 2 };

extern const struct kernel __start_kernels[], __stop_kernels[];

static u64 generator;

u32 random_word(void) {
    generator = generator * 6364136223846793005u + 1442695040888963407u;
    return (u32)(generator >> 33);
}

__attribute__((noreturn)) static void end(long status) {
    system_call(SYS_EXIT, status, 0, 0);
    __builtin_unreachable();
}

static void print(int file, const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    system_call(SYS_WRITE, file, (long)text, (long)length);
}

void check_failed(const char *condition) {
    print(STANDARD_ERROR, "a kernel found its result wrong: ");
    print(STANDARD_ERROR, condition);
    print(STANDARD_ERROR, "\n");
    end(1);
}

static int equal(const char *left, const char *right) {
    while (*left && *left == *right) {
        left++;
        right++;
    }
    return *left == *right;
}

static u64 number(const char *text) {
    u64 value = 0;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (u64)(*text - '0');
    return value;
}

static void run(const struct kernel *kernel, u64 rounds) {
    u64 digest = 0;
    char line[18];
    generator = 0x853c49e6748fea9bu;
    for (u64 round = 0; round < rounds; round++) digest = digest * 33 + kernel->run();
    for (int i = 0; i < 16; i++) line[i] = "0123456789abcdef"[digest >> (60 - 4 * i) & 15];
    line[16] = '\n';
    line[17] = 0;
    print(STANDARD_OUTPUT, line);
}

static void run_named(const char *name, u64 rounds) {
    for (const struct kernel *kernel = __start_kernels; kernel < __stop_kernels; kernel++)
        if (equal(kernel->name, name)) {
            run(kernel, rounds);
            return;
        }
    print(STANDARD_ERROR, "there is no kernel ");
    print(STANDARD_ERROR, name);
    print(STANDARD_ERROR, "\n");
    end(2);
}

/* `stack` is as execve(2) leaves it: the number of arguments, then pointers to them. */
__attribute__((noreturn, used)) void start(const long *stack) {
    char **arguments = (char **)(stack + 1);
    for (long i = 1; i + 1 < stack[0]; i += 2) run_named(arguments[i], number(arguments[i + 1]));
    end(0);
}

#if defined(__riscv)
__asm__(".globl _start\n_start:\n.option push\n.option norelax\nla gp, __global_pointer$\n.option pop\n"
        "mv a0, sp\nandi sp, sp, -16\ncall start\n");
#else
__asm__(".globl _start\n_start:\nmovq %rsp, %rdi\nandq $-16, %rsp\ncall start\n");
#endif
