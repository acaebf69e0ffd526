/* A hash table with open addressing that grows and forgets: insertions, lookups, deletions. */
#include "kernel.h"

struct entry { u64 key, value; };
enum { LARGEST = 1 << 14, EMPTY = 0 };
static struct entry stores[2][LARGEST];
static struct entry *table;
static u32 mask, used, which;

static u32 slot_of(u64 key) { return (u32)(key * 0x9e3779b97f4a7c15u >> 40) & mask; }

NOINLINE static struct entry *find(u64 key) {
    u32 slot = slot_of(key);
    while (table[slot].key != EMPTY && table[slot].key != key) slot = (slot + 1) & mask;
    return &table[slot];
}

static void grow(void) {
    struct entry *old = table;
    u32 count = mask + 1;
    which ^= 1;
    table = stores[which];
    mask = 2 * count - 1;
    memset(table, 0, 2 * count * sizeof *table);
    for (u32 i = 0; i < count; i++)
        if (old[i].key != EMPTY) *find(old[i].key) = old[i];
}

static void insert(u64 key, u64 value) {
    struct entry *entry = find(key);
    if (entry->key == EMPTY) {
        if (4 * ++used > 3 * mask) {
            grow();
            entry = find(key);
        }
        entry->key = key;
        entry->value = 0;
    }
    entry->value += value;
}

/* Deletion moves later entries of the run back, so that no marks are needed. */
static void erase(u64 key) {
    struct entry *entry = find(key);
    if (entry->key == EMPTY) return;
    u32 hole = (u32)(entry - table);
    used--;
    for (u32 at = (hole + 1) & mask; table[at].key != EMPTY; at = (at + 1) & mask)
        if (((at - slot_of(table[at].key)) & mask) >= ((at - hole) & mask)) {
            table[hole] = table[at];
            hole = at;
        }
    table[hole].key = EMPTY;
}

KERNEL(hash_table, 190) {
    u64 digest = 0;
    table = stores[0];
    which = used = 0;
    mask = 15;
    memset(table, 0, 16 * sizeof *table);
    for (u32 i = 0; i < 9000; i++) {
        u64 key = 1 + random_word() % 5000;
        if (i % 5 == 4) erase(key);
        else insert(key, i);
    }
    for (u64 key = 1; key <= 5000; key++) {
        struct entry *entry = find(key);
        if (entry->key) digest = mixed(digest, entry->value);
    }
    return mixed(digest, used);
}
