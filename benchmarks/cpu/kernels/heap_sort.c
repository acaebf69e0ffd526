/* Heap sort of random words: compares, swaps, data-dependent branches. */
#include "kernel.h"

enum { SIZE = 30000 };
static u32 words[SIZE];

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

KERNEL(sort, 27) {
    for (u32 i = 0; i < SIZE; i++) words[i] = random_word();
    for (u32 i = SIZE / 2; i-- > 0;) sift(i, SIZE);
    for (u32 i = SIZE - 1; i > 0; i--) {
        u32 largest = words[0];
        words[0] = words[i];
        words[i] = largest;
        sift(0, i);
    }
    u64 digest = 0;
    for (u32 i = 0; i < SIZE; i++) {
        CHECK(i == 0 || words[i - 1] <= words[i]);
        digest = digest * 31 + words[i];
    }
    return digest;
}
