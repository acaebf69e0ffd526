/* A general sort: elements of any size swapped byte by byte, compared through a pointer to a function. */
#include "kernel.h"

typedef int (*comparison)(const void *, const void *);
struct record { u32 key; u16 weight; char name[10]; };
enum { RECORDS = 1200 };
static struct record records[RECORDS];

static void swap(u8 *a, u8 *b, size_t size) {
    while (size--) {
        u8 kept = *a;
        *a++ = *b;
        *b++ = kept;
    }
}

NOINLINE static void quick_sort(u8 *base, size_t count, size_t size, comparison compare) {
    while (count > 1) {
        u8 *pivot = base + count / 2 * size, *low = base, *end = base + count * size;
        swap(base, pivot, size);
        for (u8 *at = base + size; at < end; at += size)
            if (compare(at, base) < 0) swap(at, low += size, size);
        swap(base, low, size);
        size_t left = (size_t)(low - base) / size;
        quick_sort(base, left, size, compare);
        base = low + size;
        count -= left + 1;
    }
}

NOINLINE static int by_key(const void *a, const void *b) {
    u32 x = ((const struct record *)a)->key, y = ((const struct record *)b)->key;
    return (x > y) - (x < y);
}
NOINLINE static int by_name(const void *a, const void *b) {
    const struct record *x = a, *y = b;
    int order = memcmp(x->name, y->name, sizeof x->name);
    return order ? order : by_key(a, b);
}
static const comparison orders[] = {by_key, by_name};

KERNEL(callbacks, 64) {
    u64 digest = 0;
    for (u32 i = 0; i < RECORDS; i++) {
        records[i].key = random_word();
        records[i].weight = (u16)i;
        for (u32 k = 0; k < sizeof records->name; k++) records[i].name[k] = (char)('a' + random_word() % 3);
    }
    for (u32 k = 0; k < ITEMS(orders); k++) {
        quick_sort((u8 *)records, RECORDS, sizeof *records, orders[k]);
        for (u32 i = 0; i < RECORDS; i++) {
            CHECK(i == 0 || orders[k](&records[i - 1], &records[i]) <= 0);
            digest = mixed(digest, records[i].weight);
        }
    }
    return digest;
}
