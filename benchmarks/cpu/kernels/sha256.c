/* SHA-256 (FIPS 180-4): its constants are computed, the standard's first example checked. */
#include "kernel.h"

enum { SIZE = 8000 };
static u8 data[SIZE];
static u32 constants[64], initial[8];

/* The first 32 bits of the fraction of a prime's square or cube root, by bisection in integers. */
static u32 root_fraction(u32 prime, u32 power) {
    u64 low = 0, high = (u64)20 << 32;
    while (high - low > 1) {
        u64 middle = (low + high) / 2;
        u128 square = (u128)middle * middle;
        int small = power == 2 ? square < (u128)prime << 64 : square * middle < (u128)prime << 96;
        if (small) low = middle;
        else high = middle;
    }
    return (u32)low;
}

static void make_constants(void) {
    u32 count = 0;
    for (u32 prime = 2; count < 64; prime++) {
        u32 divisor = 2;
        while (divisor * divisor <= prime && prime % divisor) divisor++;
        if (divisor * divisor <= prime) continue;
        if (count < 8) initial[count] = root_fraction(prime, 2);
        constants[count++] = root_fraction(prime, 3);
    }
}

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
NOINLINE static void compress(u32 *state, const u8 *block) {
    u32 w[64], v[8];
    for (int i = 0; i < 16; i++, block += 4)
        w[i] = (u32)block[0] << 24 | (u32)block[1] << 16 | (u32)block[2] << 8 | block[3];
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ROTATE(a, 7) ^ ROTATE(a, 18) ^ a >> 3);
        w[i] += w[i - 7] + (ROTATE(b, 17) ^ ROTATE(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++) v[i] = state[i];
    for (int i = 0; i < 64; i++) {
        u32 e = v[4], a = v[0];
        u32 t = v[7] + (ROTATE(e, 6) ^ ROTATE(e, 11) ^ ROTATE(e, 25)) + ((e & v[5]) ^ (~e & v[6]));
        t += constants[i] + w[i];
        u32 s = (ROTATE(a, 2) ^ ROTATE(a, 13) ^ ROTATE(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        v[7] = v[6], v[6] = v[5], v[5] = e, v[4] = v[3] + t;
        v[3] = v[2], v[2] = v[1], v[1] = a, v[0] = t + s;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void digest(u32 *state, const u8 *bytes, u32 size) {
    u8 block[64] = {0};
    u32 left = size;
    memcpy(state, initial, sizeof initial);
    for (; left >= 64; left -= 64, bytes += 64) compress(state, bytes);
    memcpy(block, bytes, left);
    block[left] = 0x80;
    if (left >= 56) {
        compress(state, block);
        memset(block, 0, sizeof block);
    }
    for (int i = 0; i < 8; i++) block[63 - i] = (u8)((u64)size * 8 >> 8 * i);
    compress(state, block);
}

KERNEL(sha256, 610) {
    u32 state[8];
    u64 result = 0;
    if (!constants[0]) make_constants();
    digest(state, (const u8 *)"abc", 3);
    CHECK(state[0] == 0xba7816bfu && state[7] == 0xf20015adu);
    for (u32 i = 0; i < SIZE; i++) data[i] = (u8)random_word();
    digest(state, data, SIZE);
    for (int i = 0; i < 8; i++) result = mixed(result, state[i]);
    return result;
}
