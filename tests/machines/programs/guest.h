/* What programs of these tests share: calls of SBI, the console, control registers. They begin in `main`. */

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

struct result { long error; long value; };

static struct result sbi3(u64 extension, u64 function, u64 a, u64 b, u64 c)
{
    register u64 a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c;
    register u64 a6 __asm__("a6") = function, a7 __asm__("a7") = extension;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a6), "r"(a7) : "memory");
    return (struct result){a0, a1};
}
#define sbi(extension, function, a, b) sbi3(extension, function, a, b, 0)

enum { BASE = 0x10, TIME = 0x54494d45, IPI = 0x735049, RFENCE = 0x52464e43, HSM = 0x48534d, SRST = 0x53525354,
       DBCN = 0x4442434e };

#define get(name) ({ u64 value; __asm__ volatile("csrr %0, " #name : "=r"(value)); value; })
#define set(name, value) __asm__ volatile("csrw " #name ", %0" :: "r"((u64)(value)) : "memory")
#define set_bits(name, value) __asm__ volatile("csrs " #name ", %0" :: "r"((u64)(value)) : "memory")
#define clear_bits(name, value) __asm__ volatile("csrc " #name ", %0" :: "r"((u64)(value)) : "memory")
#define wfi() __asm__ volatile("wfi" ::: "memory")

static void put(char c) { sbi(1, 0, c, 0); }
static void print(const char *text) { while (*text) put(*text++); }
static void hex(u64 value)
{
    for (int shift = 60; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
}
static void show(const char *name, u64 value) { print(name); print(" "); hex(value); print("\n"); }
static void power_off(void) { sbi(SRST, 0, 0, 0); for (;;) wfi(); }

void main(u64 hart, u64 argument);
void trap(void);
extern char secondary[];

/* Each hart has a stack of 4 KiB; `secondary` is where other harts are started. */
__asm__(".section .text.unlikely._first, \"ax\"\n.globl _start, secondary\n"
        "_start: secondary:\n"
        "  la sp, stacks + 4096\n  slli t0, a0, 12\n  add sp, sp, t0\n  call main\n"
        "1: wfi\n  j 1b\n"
        ".bss\n.balign 4096\nstacks: .skip 8 * 4096\n.text\n");
