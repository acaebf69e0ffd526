/* The memory functions that compilers call by themselves, a word at a time where both sides are aligned. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#include "kernel.h"

typedef u64 __attribute__((may_alias)) word;

static int aligned(const void *left, const void *right) {
    return (((uintptr_t)left | (uintptr_t)right) & 7) == 0;
}

void *memset(void *target, int value, size_t size) {
    u8 *bytes = target;
    const u64 pattern = 0x0101010101010101u * (u8)value;
    while (size && ((uintptr_t)bytes & 7)) {
        *bytes++ = (u8)value;
        size--;
    }
    for (; size >= 8; size -= 8, bytes += 8) *(word *)bytes = pattern;
    while (size--) *bytes++ = (u8)value;
    return target;
}

void *memcpy(void *restrict target, const void *restrict source, size_t size) {
    u8 *to = target;
    const u8 *from = source;
    if (aligned(to, from))
        for (; size >= 8; size -= 8, to += 8, from += 8) *(word *)to = *(const word *)from;
    while (size--) *to++ = *from++;
    return target;
}

void *memmove(void *target, const void *source, size_t size) {
    u8 *to = target;
    const u8 *from = source;
    if (to - from >= (ptrdiff_t)size || to <= from) return memcpy(target, source, size);
    while (size--) to[size] = from[size];
    return target;
}

int memcmp(const void *left, const void *right, size_t size) {
    const u8 *a = left, *b = right;
    for (; size; size--, a++, b++)
        if (*a != *b) return *a - *b;
    return 0;
}
