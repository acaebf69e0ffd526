/* A long way through memory: one cycle over megabytes in random order, each load's address from the last. */
#include "kernel.h"

enum { LINKS = 1 << 18 };
static u32 links[LINKS][4];

KERNEL(pointer_chase, 12) {
    u32 at = 0;
    u64 digest = 0;
    /* Sattolo's shuffle makes one cycle of all. */
    for (u32 i = 0; i < LINKS; i++) links[i][0] = i;
    for (u32 i = LINKS; i-- > 1;) {
        u32 other = random_word() % i, kept = links[i][0];
        links[i][0] = links[other][0];
        links[other][0] = kept;
        links[i][1] = kept;
    }
    for (u32 step = 0; step < LINKS; step++) {
        digest += links[at][1] ^ step;
        at = links[at][0];
    }
    CHECK(at == 0);
    return digest;
}
