/* Recursion and indirect calls: evaluating random expression trees, and Ackermann's function. */
#include "kernel.h"

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

KERNEL(calls, 190) {
    u32 m = 2;
    OPAQUE(m);
    u32 value = ackermann(m, 120);
    CHECK(value == 2 * 120 + 3);
    return evaluate(12345, 14) * 1000 + value;
}
