/* Small self-checking programs for measuring CPU engines: -DKERNEL=name chooses one, -DROUNDS=n its length.
 *
 * They need no C library: `_start` runs the kernel ROUNDS times, writes a 16-digit digest of its results and
 * exits. One source serves every Linux ISA with the two system calls below.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#ifndef ROUNDS
#define ROUNDS 1
#endif
#define NOINLINE __attribute__((noinline))
#define OPAQUE(variable) __asm__ volatile("" : "+r"(variable) : : "memory")

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

void *memset(void *target, int value, size_t size) {
    u8 *bytes = target;
    while (size--) {
        *bytes++ = (u8)value;
        __asm__ volatile("" : : : "memory");
    }
    return target;
}

void *memcpy(void *restrict target, const void *restrict source, size_t size) {
    u8 *to = target;
    const u8 *from = source;
    while (size--) {
        *to++ = *from++;
        __asm__ volatile("" : : : "memory");
    }
    return target;
}

static u64 generator = 0x853c49e6748fea9bu;
static u32 random_word(void) {
    generator = generator * 6364136223846793005u + 1442695040888963407u;
    return (u32)(generator >> 33);
}

/* Composite numbers struck out in an array of bytes. */
enum { SIEVE_SIZE = 150000 };
static u8 composite[SIEVE_SIZE];
NOINLINE u64 sieve(void) {
    u64 sum = 0;
    for (u32 i = 0; i < SIEVE_SIZE; i++) composite[i] = 0;
    for (u32 i = 2; i < SIEVE_SIZE; i++) {
        if (composite[i]) continue;
        sum += i;
        for (u32 j = 2 * i; j < SIEVE_SIZE; j += i) composite[j] = 1;
    }
    return sum;
}

/* Heap sort of random words: compares, swaps, data-dependent branches. */
enum { SORT_SIZE = 30000 };
static u32 words[SORT_SIZE];
static void sift(u32 root, u32 size) {
    u32 value = words[root], child;
    while ((child = 2 * root + 1) < size) {
        if (child + 1 < size && words[child + 1] > words[child]) child++;
        if (words[child] <= value) break;
        words[root] = words[child];
        root = child;
    }
    words[root] = value;
}
NOINLINE u64 sort(void) {
    for (u32 i = 0; i < SORT_SIZE; i++) words[i] = random_word();
    for (u32 i = SORT_SIZE / 2; i-- > 0;) sift(i, SORT_SIZE);
    for (u32 i = SORT_SIZE - 1; i > 0; i--) {
        u32 largest = words[0];
        words[0] = words[i];
        words[i] = largest;
        sift(0, i);
    }
    u64 digest = 0;
    for (u32 i = 0; i < SORT_SIZE; i++) digest = digest * 31 + words[i];
    return digest;
}

/* BLAKE2b-like mixing: 64-bit additions, rotations and exclusive ors. */
#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define MIX(a, b, c, d, x, y)      \
    a += b + x; d = ROTATE(d ^ a, 32); \
    c += d;     b = ROTATE(b ^ c, 24); \
    a += b + y; d = ROTATE(d ^ a, 16); \
    c += d;     b = ROTATE(b ^ c, 63);
static u64 message[16], chain[8];
NOINLINE static void compress(void) {
    u64 v[16];
    for (int i = 0; i < 8; i++) {
        v[i] = chain[i];
        v[i + 8] = 0x6a09e667f3bcc908u * (u64)(i + 3);
    }
    for (int round = 0; round < 12; round++) {
        const u64 *m = message;
        int s = round & 7;
        MIX(v[0], v[4], v[8], v[12], m[s], m[s + 1]);
        MIX(v[1], v[5], v[9], v[13], m[s + 2], m[s + 3]);
        MIX(v[2], v[6], v[10], v[14], m[s + 4], m[s + 5]);
        MIX(v[3], v[7], v[11], v[15], m[s + 6], m[s + 7]);
        MIX(v[0], v[5], v[10], v[15], m[15 - s], m[14 - s]);
        MIX(v[1], v[6], v[11], v[12], m[13 - s], m[12 - s]);
        MIX(v[2], v[7], v[8], v[13], m[11 - s], m[10 - s]);
        MIX(v[3], v[4], v[9], v[14], m[9 - s], m[8 - s]);
    }
    for (int i = 0; i < 8; i++) chain[i] ^= v[i] ^ v[i + 8];
}
NOINLINE u64 hash(void) {
    for (int block = 0; block < 1500; block++) {
        for (int i = 0; i < 16; i++) message[i] = chain[i & 7] + (u64)block * 77 + (u64)i;
        compress();
    }
    return chain[0] ^ chain[5];
}

/* A virtual machine with a register file, computing Collatz lengths: an unpredictable switch. */
enum { OP_LOAD, OP_MOVE, OP_ADD, OP_MULTIPLY, OP_HALVE, OP_ODD, OP_EQUAL, OP_JUMP, OP_MAX, OP_LESS, OP_STOP };
static const u8 program[] = {
    OP_LOAD, 0, 1,  OP_LOAD, 7, 1,  OP_LOAD, 6, 3,                                         /*  0 */
    OP_MOVE, 1, 0,  OP_LOAD, 2, 0,                                                         /*  9: next */
    OP_EQUAL, 1, 44, OP_ADD, 2, 7,  OP_ODD, 1, 36, OP_HALVE, 1, 1,                         /* 15: step */
    OP_JUMP, 0, 15, OP_STOP, 0, 0,  OP_STOP, 0, 0,                                         /* 27 */
    OP_MULTIPLY, 1, 6, OP_ADD, 1, 7, OP_JUMP, 15, 15,                                      /* 36: odd */
    OP_MAX, 3, 2,   OP_ADD, 0, 7,   OP_LESS, 0, 9, OP_STOP, 0, 0,                          /* 45: done */
};
NOINLINE static u64 interpret(const u8 *code, u64 limit) {
    u64 r[8] = {0};
    u32 pc = 0;
    for (;;) {
        u8 op = code[pc], a = code[pc + 1], b = code[pc + 2];
        pc += 3;
        switch (op) {
        case OP_LOAD: r[a] = b; break;
        case OP_MOVE: r[a] = r[b]; break;
        case OP_ADD: r[a] += r[b]; break;
        case OP_MULTIPLY: r[a] *= r[b]; break;
        case OP_HALVE: r[a] = r[b] >> 1; break;
        case OP_ODD: if (r[a] & 1) pc = b; break;
        case OP_EQUAL: if (r[a] == 1) pc = b + 1; break;
        case OP_JUMP: pc = b; break;
        case OP_MAX: if (r[b] > r[a]) r[a] = r[b]; break;
        case OP_LESS: if (r[a] < limit) pc = b; break;
        default: return r[3] * 65536 + r[0];
        }
    }
}
NOINLINE u64 machine(void) {
    const u8 *code = program;
    OPAQUE(code);
    return interpret(code, 900);
}

/* Integer matrix product. */
enum { ORDER = 72 };
static u32 left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];
NOINLINE u64 matrix(void) {
    for (int i = 0; i < ORDER; i++)
        for (int j = 0; j < ORDER; j++) {
            left[i][j] = random_word();
            right[i][j] = random_word();
        }
    for (int i = 0; i < ORDER; i++)
        for (int j = 0; j < ORDER; j++) {
            u32 sum = 0;
            for (int k = 0; k < ORDER; k++) sum += left[i][k] * right[k][j];
            product[i][j] = sum;
        }
    u64 digest = 0;
    for (int i = 0; i < ORDER; i++) digest = digest * 33 + product[i][ORDER - 1 - i];
    return digest;
}

/* A binary search tree: insertions and lookups, pointers all over a pool. */
struct node { struct node *child[2]; u64 key; };
enum { NODES = 4000 };
static struct node pool[NODES];
NOINLINE u64 tree(void) {
    struct node *root = 0;
    u64 depth = 0, found = 0;
    for (u32 i = 0; i < NODES; i++) {
        struct node *fresh = &pool[(i * 1237u) % NODES], **link = &root;
        fresh->child[0] = fresh->child[1] = 0;
        fresh->key = random_word() & 0xffff;
        while (*link) {
            link = &(*link)->child[fresh->key > (*link)->key];
            depth++;
        }
        *link = fresh;
    }
    for (u64 key = 0; key < 12000; key++) {
        struct node *here = root;
        while (here && here->key != key) here = here->child[key > here->key];
        found += here != 0;
    }
    return depth * 65536 + found;
}

/* Recursion and indirect calls: evaluating random expression trees, and Ackermann's function. */
typedef u64 (*operation)(u64, u64);
NOINLINE static u64 op_add(u64 a, u64 b) { return a + b; }
NOINLINE static u64 op_mul(u64 a, u64 b) { return a * b + 1; }
NOINLINE static u64 op_xor(u64 a, u64 b) { return a ^ (b >> 1); }
NOINLINE static u64 op_max(u64 a, u64 b) { return a > b ? a : b; }
static const operation operations[] = {op_add, op_mul, op_xor, op_max};
NOINLINE static u64 evaluate(u32 seed, int depth) {
    if (depth == 0) return seed;
    u64 a = evaluate(seed * 5 + 1, depth - 1), b = evaluate(seed * 7 + 3, depth - 1);
    return operations[seed >> 3 & 3](a, b);
}
NOINLINE static u32 ackermann(u32 m, u32 n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}
NOINLINE u64 calls(void) {
    u32 m = 2;
    OPAQUE(m);
    return evaluate(12345, 14) * 1000 + ackermann(m, 120);
}

/* Text: words counted in a hash table, bytes one by one. */
enum { TEXT = 20000, BUCKETS = 512 };
static char text[TEXT];
static u32 buckets[BUCKETS];
NOINLINE u64 strings(void) {
    for (u32 i = 0; i < TEXT - 1; i++) {
        u32 word = random_word();
        text[i] = word % 6 ? (char)('a' + word % 23) : ' ';
    }
    text[TEXT - 1] = 0;
    for (u32 i = 0; i < BUCKETS; i++) buckets[i] = 0;
    for (const char *at = text; *at;) {
        while (*at == ' ') at++;
        u32 code = 2166136261u;
        while (*at && *at != ' ') code = (code ^ (u8)*at++) * 16777619u;
        buckets[code % BUCKETS]++;
    }
    u64 digest = 0;
    for (u32 i = 0; i < BUCKETS; i++) digest = digest * 7 + buckets[i];
    return digest;
}

/* Double precision: a few bodies under gravity, with division and square roots. */
enum { BODIES = 5 };
static double position[BODIES][3], velocity[BODIES][3];
static double square_root(double value) {
#if defined(__riscv)
    __asm__("fsqrt.d %0, %1" : "=f"(value) : "f"(value));
#else
    __asm__("sqrtsd %1, %0" : "=x"(value) : "x"(value));
#endif
    return value;
}
NOINLINE u64 bodies(void) {
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++) {
            position[i][k] = (double)(random_word() % 1000) / 100.0;
            velocity[i][k] = 0.0;
        }
    for (int step = 0; step < 1500; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0.01;
                for (int k = 0; k < 3; k++) {
                    d[k] = position[i][k] - position[j][k];
                    square += d[k] * d[k];
                }
                double pull = 0.001 / (square * square_root(square));
                for (int k = 0; k < 3; k++) {
                    velocity[i][k] -= d[k] * pull;
                    velocity[j][k] += d[k] * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++) position[i][k] += velocity[i][k] * 0.01;
    }
    double sum = 0.0;
    for (int i = 0; i < BODIES; i++) sum += position[i][0] + velocity[i][1];
    union { double number; u64 bits; } image = {sum};
    return image.bits;
}

__attribute__((noreturn, used)) static void start(void) {
    u64 digest = 0;
    for (int round = 0; round < ROUNDS; round++) {
        digest = digest * 33 + KERNEL();
        __asm__ volatile("" : : : "memory");
    }
    char line[17];
    for (int i = 0; i < 16; i++) line[i] = "0123456789abcdef"[digest >> (60 - 4 * i) & 15];
    line[16] = '\n';
    system_call(SYS_WRITE, 1, (long)line, sizeof line);
    system_call(SYS_EXIT, 0, 0, 0);
    __builtin_unreachable();
}

#if defined(__riscv)
__asm__(".globl _start\n_start:\n.option push\n.option norelax\nla gp, __global_pointer$\n.option pop\n"
        "andi sp, sp, -16\ncall start\n");
#else
__asm__(".globl _start\n_start:\nandq $-16, %rsp\ncall start\n");
#endif
