/* Backtracking with propagation: solving Sudokus made from a pattern by random exchanges. */
#include "kernel.h"

static u16 rows[9], columns[9], boxes[9];
static u8 cells[81];
static u32 guesses;

static u32 open_digits(u32 cell) {
    u32 row = cell / 9, column = cell % 9;
    return 0x1ffu & ~((u32)rows[row] | columns[column] | boxes[row / 3 * 3 + column / 3]);
}

static void toggle(u32 cell, u32 bit) {
    u32 row = cell / 9, column = cell % 9;
    rows[row] ^= (u16)bit;
    columns[column] ^= (u16)bit;
    boxes[row / 3 * 3 + column / 3] ^= (u16)bit;
}

NOINLINE static int solve(void) {
    u32 best = 81, least = 10, choices = 0;
    for (u32 cell = 0; cell < 81 && least > 1; cell++) {
        if (cells[cell]) continue;
        u32 open = open_digits(cell), count = 0;
        for (u32 bits = open; bits; bits &= bits - 1) count++;
        if (count < least) {
            least = count;
            best = cell;
            choices = open;
        }
    }
    if (best == 81) return 1;
    for (; choices; choices &= choices - 1) {
        u32 bit = choices & -choices, digit = 1;
        while (bit >> digit) digit++;
        guesses++;
        cells[best] = (u8)digit;
        toggle(best, bit);
        if (solve()) return 1;
        toggle(best, bit);
        cells[best] = 0;
    }
    return 0;
}

KERNEL(sudoku, 770) {
    u64 digest = 0;
    for (u32 puzzle = 0; puzzle < 4; puzzle++) {
        u8 names[9];
        for (u32 i = 0; i < 9; i++) names[i] = (u8)(i + 1);
        for (u32 i = 9; i-- > 1;) {
            u32 other = random_word() % (i + 1);
            u8 kept = names[i];
            names[i] = names[other];
            names[other] = kept;
        }
        memset(rows, 0, sizeof rows);
        memset(columns, 0, sizeof columns);
        memset(boxes, 0, sizeof boxes);
        for (u32 cell = 0; cell < 81; cell++) {
            u32 row = cell / 9, column = cell % 9;
            cells[cell] = random_word() % 100 < 36 ? names[(row * 3 + row / 3 + column) % 9] : 0;
            if (cells[cell]) toggle(cell, 1u << (cells[cell] - 1));
        }
        guesses = 0;
        CHECK(solve());
        for (u32 i = 0; i < 9; i++) CHECK(rows[i] == 0x1ff && columns[i] == 0x1ff && boxes[i] == 0x1ff);
        for (u32 cell = 0; cell < 81; cell++) digest = mixed(digest, cells[cell]);
        digest = mixed(digest, guesses);
    }
    return digest;
}
