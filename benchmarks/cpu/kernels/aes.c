/* AES-128 (FIPS 197) by tables of 32-bit words, which are computed; the standard's example is checked. */
#include "kernel.h"

enum { BLOCKS = 400 };
static u8 substitution[256];
static u32 tables[4][256], keys[44];
static u8 data[BLOCKS][16];

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
static u8 doubled(u8 x) { return (u8)(x << 1 ^ (x & 0x80 ? 0x1b : 0)); }
static u32 word_at(const u8 *p) { return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3]; }

static void make_tables(void) {
    u8 p = 1, q = 1;
    do {
        p ^= doubled(p);
        q ^= (u8)(q << 1), q ^= (u8)(q << 2), q ^= (u8)(q << 4);
        if (q & 0x80) q ^= 0x09;
        u32 x = (u32)q << 8 | q;
        substitution[p] = (u8)((q ^ x >> 7 ^ x >> 6 ^ x >> 5 ^ x >> 4) ^ 0x63);
    } while (p != 1);
    substitution[0] = 0x63;
    for (u32 i = 0; i < 256; i++) {
        u8 s = substitution[i], d = doubled(s);
        tables[0][i] = (u32)d << 24 | (u32)s << 16 | (u32)s << 8 | (u8)(d ^ s);
        for (u32 k = 1; k < 4; k++) tables[k][i] = ROTATE(tables[k - 1][i], 24);
    }
}

static u32 substituted(u32 x) {
    return (u32)substitution[x >> 24] << 24 | (u32)substitution[x >> 16 & 255] << 16 |
           (u32)substitution[x >> 8 & 255] << 8 | substitution[x & 255];
}

NOINLINE static void expand(const u8 *key) {
    u8 constant = 1;
    for (u32 i = 0; i < 4; i++) keys[i] = word_at(key + 4 * i);
    for (u32 i = 4; i < 44; i++) {
        u32 word = keys[i - 1];
        if (i % 4 == 0) {
            word = substituted(ROTATE(word, 8)) ^ (u32)constant << 24;
            constant = doubled(constant);
        }
        keys[i] = keys[i - 4] ^ word;
    }
}

NOINLINE static void encrypt(u8 *block) {
    u32 s[4], t[4];
    for (u32 i = 0; i < 4; i++) s[i] = word_at(block + 4 * i) ^ keys[i];
    for (u32 round = 1; round < 10; round++) {
        for (u32 i = 0; i < 4; i++)
            t[i] = tables[0][s[i] >> 24] ^ tables[1][s[(i + 1) & 3] >> 16 & 255] ^
                   tables[2][s[(i + 2) & 3] >> 8 & 255] ^ tables[3][s[(i + 3) & 3] & 255] ^
                   keys[4 * round + i];
        for (u32 i = 0; i < 4; i++) s[i] = t[i];
    }
    for (u32 i = 0; i < 4; i++) {
        u32 word = (s[i] & 0xff000000u) | (s[(i + 1) & 3] & 0xff0000u);
        word |= (s[(i + 2) & 3] & 0xff00u) | (s[(i + 3) & 3] & 255);
        word = substituted(word) ^ keys[40 + i];
        for (u32 k = 0; k < 4; k++) block[4 * i + k] = (u8)(word >> (24 - 8 * k));
    }
}

KERNEL(aes, 530) {
    u8 key[16], block[16];
    u64 digest = 0;
    make_tables();
    for (u32 i = 0; i < 16; i++) {
        key[i] = (u8)i;
        block[i] = (u8)(0x11 * i);
    }
    expand(key);
    encrypt(block);
    CHECK(word_at(block) == 0x69c4e0d8u && word_at(block + 12) == 0x70b4c55au);
    for (u32 i = 0; i < 16; i++) key[i] = (u8)random_word();
    expand(key);
    for (u32 i = 0; i < BLOCKS; i++) {
        for (u32 k = 0; k < 16; k++) data[i][k] = (u8)(random_word() ^ (i ? data[i - 1][k] : 0));
        encrypt(data[i]);
    }
    for (u32 k = 0; k < 16; k++) digest = mixed(digest, data[BLOCKS - 1][k]);
    return digest;
}
