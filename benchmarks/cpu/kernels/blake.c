/* BLAKE2b-like mixing: 64-bit additions, rotations and exclusive ors. */
#include "kernel.h"

#define ROTATE(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define MIX(a, b, c, d, x, y)          \
    a += b + x; d = ROTATE(d ^ a, 32); \
    c += d;     b = ROTATE(b ^ c, 24); \
    a += b + y; d = ROTATE(d ^ a, 16); \
    c += d;     b = ROTATE(b ^ c, 63);
static u64 message[16], chain[8];

NOINLINE static void compress(void) {
    u64 v[16];
    for (int i = 0; i < 8; i++) {
        v[i] = chain[i];
        v[i + 8] = 0x6a09e667f3bcc908u * (u64)(i + 3);
    }
    for (int round = 0; round < 12; round++) {
        const u64 *m = message;
        int s = round & 7;
        MIX(v[0], v[4], v[8], v[12], m[s], m[s + 1]);
        MIX(v[1], v[5], v[9], v[13], m[s + 2], m[s + 3]);
        MIX(v[2], v[6], v[10], v[14], m[s + 4], m[s + 5]);
        MIX(v[3], v[7], v[11], v[15], m[s + 6], m[s + 7]);
        MIX(v[0], v[5], v[10], v[15], m[15 - s], m[14 - s]);
        MIX(v[1], v[6], v[11], v[12], m[13 - s], m[12 - s]);
        MIX(v[2], v[7], v[8], v[13], m[11 - s], m[10 - s]);
        MIX(v[3], v[4], v[9], v[14], m[9 - s], m[8 - s]);
    }
    for (int i = 0; i < 8; i++) chain[i] ^= v[i] ^ v[i + 8];
}

KERNEL(hash, 210) {
    for (int block = 0; block < 1500; block++) {
        for (int i = 0; i < 16; i++) message[i] = chain[i & 7] + (u64)block * 77 + (u64)i;
        compress();
    }
    return chain[0] ^ chain[5];
}
