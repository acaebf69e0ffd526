/* A binary search tree: insertions and lookups, pointers all over a pool. */
#include "kernel.h"

struct node { struct node *child[2]; u64 key; };
enum { NODES = 4000 };
static struct node pool[NODES];

KERNEL(tree, 120) {
    struct node *root = 0;
    u64 depth = 0, found = 0;
    for (u32 i = 0; i < NODES; i++) {
        struct node *fresh = &pool[(i * 1237u) % NODES], **link = &root;
        fresh->child[0] = fresh->child[1] = 0;
        fresh->key = random_word() & 0xffff;
        while (*link) {
            link = &(*link)->child[fresh->key > (*link)->key];
            depth++;
        }
        *link = fresh;
    }
    for (u64 key = 0; key < 12000; key++) {
        struct node *here = root;
        while (here && here->key != key) here = here->child[key > here->key];
        found += here != 0;
    }
    return depth * 65536 + found;
}
