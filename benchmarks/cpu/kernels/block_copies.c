/* Copying, moving, filling and comparing blocks of memory of all sizes at all alignments. */
#include "kernel.h"

enum { SIZE = 4096 };
static u8 from[SIZE], to[SIZE];
typedef u64 __attribute__((aligned(1), may_alias)) unaligned;

/* Eight bytes at a time wherever they are: misaligned loads and stores on most turns. */
NOINLINE static void copy_words(u8 *target, const u8 *source, u32 size) {
    for (; size >= 8; size -= 8, target += 8, source += 8) *(unaligned *)target = *(const unaligned *)source;
    while (size--) *target++ = *source++;
}

KERNEL(blocks, 920) {
    u64 digest = 0;
    for (u32 i = 0; i < SIZE; i++) from[i] = (u8)random_word();
    for (u32 turn = 0; turn < 400; turn++) {
        u32 size = random_word() % (turn % 8 ? 100 : 2000);
        u32 at = random_word() % 1000, source = random_word() % 1000;
        switch (turn % 5) {
        case 0: memcpy(to + at, from + source, size); break;
        case 1: copy_words(to + at, from + source, size); break;
        case 2: memset(to + at, (int)turn, size); break;
        case 3: memmove(to + at, to + source, size); break;
        case 4: digest = mixed(digest, (u64)(s64)memcmp(to + at, from + source, size)); break;
        }
        digest = mixed(digest, to[(at + size / 2) % SIZE]);
    }
    for (u32 i = 0; i < SIZE; i += 8) digest = mixed(digest, *(const unaligned *)(to + i));
    return digest;
}
