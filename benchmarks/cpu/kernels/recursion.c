/* Deep and wide recursion: Fibonacci numbers, Takeuchi's function, the towers of Hanoi. */
#include "kernel.h"

NOINLINE static u32 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

NOINLINE static s32 takeuchi(s32 x, s32 y, s32 z) {
    return y < x ? takeuchi(takeuchi(x - 1, y, z), takeuchi(y - 1, z, x), takeuchi(z - 1, x, y)) : z;
}

static u32 heights[3];
NOINLINE static u32 hanoi(u32 discs, u32 from, u32 to) {
    u32 other = 3 - from - to, moves;
    if (discs == 0) return 0;
    moves = hanoi(discs - 1, from, other) + 1;
    heights[from]--;
    heights[to]++;
    return moves + hanoi(discs - 1, other, to);
}

KERNEL(recursion, 450) {
    u32 n = 20, discs = 12;
    OPAQUE(n);
    OPAQUE(discs);
    heights[0] = discs;
    heights[1] = heights[2] = 0;
    u32 value = fibonacci(n), moves = hanoi(discs, 0, 2);
    CHECK(value == 6765 && moves == 4095 && heights[2] == 12);
    return ((u64)value << 32 | moves) + (u64)takeuchi(14, 8, (s32)(n % 7));
}
