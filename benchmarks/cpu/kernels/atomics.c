/* Atomic operations as a single thread uses them: counters, a lock, a lock-free stack, exchanges. */
#include "kernel.h"

struct link { struct link *next; u32 value; };
enum { LINKS = 64 };
static struct link links[LINKS], *top;
static u32 lock, counter, maximum;
static u64 bits;

NOINLINE static void push(struct link *link) {
    struct link *seen = __atomic_load_n(&top, __ATOMIC_ACQUIRE);
    do link->next = seen;
    while (!__atomic_compare_exchange_n(&top, &seen, link, 1, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}
NOINLINE static struct link *pop(void) {
    struct link *seen = __atomic_load_n(&top, __ATOMIC_ACQUIRE);
    while (seen &&
           !__atomic_compare_exchange_n(&top, &seen, seen->next, 1, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {}
    return seen;
}
NOINLINE static void guarded(u32 value) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {}
    if (value > maximum) maximum = value;
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

KERNEL(atomics, 1000) {
    u64 digest = 0;
    counter = maximum = 0;
    bits = 0;
    for (u32 turn = 0; turn < 40; turn++) {
        for (u32 i = 0; i < LINKS; i++) {
            links[i].value = random_word();
            push(&links[i]);
            __atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED);
        }
        for (struct link *link = pop(); link; link = pop()) {
            guarded(link->value % 1000);
            digest = mixed(digest, __atomic_fetch_xor(&bits, (u64)link->value << turn, __ATOMIC_SEQ_CST));
            __atomic_fetch_or(&bits, 1u << (turn % 32), __ATOMIC_RELEASE);
            __atomic_fetch_and(&bits, ~(u64)link->value, __ATOMIC_ACQUIRE);
        }
    }
    CHECK(counter == 40 * LINKS && top == 0 && lock == 0);
    return mixed(digest, maximum);
}
