/* Composite numbers struck out in an array of bytes. */
#include "kernel.h"

enum { SIZE = 150000 };
static u8 composite[SIZE];

KERNEL(sieve, 150) {
    u64 sum = 0;
    for (u32 i = 0; i < SIZE; i++) composite[i] = 0;
    for (u32 i = 2; i < SIZE; i++) {
        if (composite[i]) continue;
        sum += i;
        for (u32 j = 2 * i; j < SIZE; j += i) composite[j] = 1;
    }
    return sum;
}
