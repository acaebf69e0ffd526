/* A B-tree of small nodes: insertion with splits on the way down, lookups, an ordered walk. */
#include "kernel.h"

enum { HALF = 8, MOST = 2 * HALF - 1, NODES = 2000, KEYS = 6000 };
struct node { u16 count, leaf; u32 keys[MOST]; struct node *children[MOST + 1]; };
static struct node pool[NODES];
static u32 taken;

static struct node *new_node(int leaf) {
    CHECK(taken < NODES);
    struct node *node = &pool[taken++];
    node->count = 0;
    node->leaf = (u16)leaf;
    return node;
}

NOINLINE static void split(struct node *parent, u32 position) {
    struct node *full = parent->children[position], *right = new_node(full->leaf);
    right->count = HALF - 1;
    memcpy(right->keys, full->keys + HALF, (HALF - 1) * sizeof *full->keys);
    if (!full->leaf) memcpy(right->children, full->children + HALF, HALF * sizeof *full->children);
    full->count = HALF - 1;
    for (u32 i = parent->count; i > position; i--) {
        parent->keys[i] = parent->keys[i - 1];
        parent->children[i + 1] = parent->children[i];
    }
    parent->keys[position] = full->keys[HALF - 1];
    parent->children[position + 1] = right;
    parent->count++;
}

static u32 position_of(const struct node *node, u32 key) {
    u32 low = 0, high = node->count;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (node->keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low;
}

NOINLINE static void insert(struct node **root, u32 key) {
    if ((*root)->count == MOST) {
        struct node *top = new_node(0);
        top->children[0] = *root;
        *root = top;
        split(top, 0);
    }
    for (struct node *node = *root;;) {
        u32 position = position_of(node, key);
        if (node->leaf) {
            for (u32 i = node->count; i > position; i--) node->keys[i] = node->keys[i - 1];
            node->keys[position] = key;
            node->count++;
            return;
        }
        if (node->children[position]->count == MOST) {
            split(node, position);
            position += node->keys[position] < key;
        }
        node = node->children[position];
    }
}

static int contains(const struct node *node, u32 key) {
    for (;;) {
        u32 position = position_of(node, key);
        if (position < node->count && node->keys[position] == key) return 1;
        if (node->leaf) return 0;
        node = node->children[position];
    }
}

static u64 digest;
static u32 last, walked;
static void visit(u32 key) {
    CHECK(key >= last);
    last = key;
    walked++;
    digest = mixed(digest, key);
}
static void walk(const struct node *node) {
    for (u32 i = 0; i < node->count; i++) {
        if (!node->leaf) walk(node->children[i]);
        visit(node->keys[i]);
    }
    if (!node->leaf) walk(node->children[node->count]);
}

KERNEL(b_tree, 85) {
    taken = 0;
    struct node *root = new_node(1);
    u32 found = 0;
    for (u32 i = 0; i < KEYS; i++) insert(&root, random_word() % 50000);
    for (u32 key = 0; key < 50000; key += 7) found += (u32)contains(root, key);
    digest = last = walked = 0;
    walk(root);
    CHECK(walked == KEYS);
    return mixed(digest, found);
}
