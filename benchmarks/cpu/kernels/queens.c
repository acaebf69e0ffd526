/* Backtracking: the ways to place queens on a board, by sets of bits. */
#include "kernel.h"

NOINLINE static u32 place(u32 free, u32 columns, u32 rising, u32 falling) {
    u32 count = 0;
    if (columns == free) return 1;
    for (u32 open = free & ~(columns | rising | falling); open; open &= open - 1) {
        u32 bit = open & -open;
        count += place(free, columns | bit, (rising | bit) << 1, (falling | bit) >> 1);
    }
    return count;
}

KERNEL(queens, 590) {
    u32 size = 8;
    OPAQUE(size);
    u32 small = place((1u << size) - 1, 0, 0, 0), large = place((1u << (size + 1)) - 1, 0, 0, 0);
    CHECK(small == 92 && large == 352);
    return small * 1000 + large;
}
