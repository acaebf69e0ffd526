/* Linked lists: building, reversing, searching and a bottom-up merge sort by two keys in turn. */
#include "kernel.h"

struct item { struct item *next; s32 key; u32 index; };
enum { ITEM_COUNT = 2000 };
static struct item items[ITEM_COUNT];

typedef int (*order)(const struct item *, const struct item *);
NOINLINE static int by_index(const struct item *a, const struct item *b) {
    return (a->index > b->index) - (a->index < b->index);
}
NOINLINE static int by_key(const struct item *a, const struct item *b) {
    return a->key != b->key ? (a->key > b->key) - (a->key < b->key) : by_index(a, b);
}

static struct item *merge(struct item *a, struct item *b, order compare) {
    struct item *head = 0, **tail = &head;
    while (a && b) {
        struct item **smaller = compare(a, b) <= 0 ? &a : &b;
        *tail = *smaller;
        tail = &(*tail)->next;
        *smaller = *tail;
    }
    *tail = a ? a : b;
    return head;
}

NOINLINE static struct item *sorted(struct item *list, order compare) {
    struct item *parts[16] = {0};
    while (list) {
        struct item *one = list;
        unsigned level = 0;
        list = list->next;
        one->next = 0;
        for (; parts[level]; level++) {
            one = merge(parts[level], one, compare);
            parts[level] = 0;
        }
        parts[level] = one;
    }
    for (unsigned level = 0; level < ITEMS(parts); level++) list = merge(parts[level], list, compare);
    return list;
}

NOINLINE static struct item *reversed(struct item *list) {
    struct item *result = 0;
    while (list) {
        struct item *next = list->next;
        list->next = result;
        result = list;
        list = next;
    }
    return result;
}

KERNEL(lists, 120) {
    struct item *list = 0;
    u64 digest = 0;
    for (u32 i = 0; i < ITEM_COUNT; i++) {
        items[i] = (struct item){list, (s32)(random_word() % 1000) - 500, i};
        list = &items[i];
    }
    list = sorted(list, by_key);
    for (struct item *at = list; at; at = at->next) {
        CHECK(!at->next || by_key(at, at->next) < 0);
        digest = mixed(digest, at->index);
    }
    list = reversed(list);
    for (s32 wanted = -40; wanted < 0; wanted++) {
        struct item *at = list;
        while (at && at->key != wanted) at = at->next;
        digest = mixed(digest, at ? at->index : 0);
    }
    list = sorted(list, by_index);
    CHECK(list == &items[0]);
    return digest;
}
