/* Base64: coding and decoding by tables, six bits at a time. */
#include "kernel.h"

enum { SIZE = 6000 };
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static u8 data[SIZE], decoded[SIZE];
static char coded[SIZE / 3 * 4 + 4];
static s8 values[256];

NOINLINE static u32 encode(const u8 *in, u32 size, char *out) {
    char *begin = out;
    for (; size >= 3; size -= 3, in += 3) {
        u32 group = (u32)in[0] << 16 | (u32)in[1] << 8 | in[2];
        for (int shift = 18; shift >= 0; shift -= 6) *out++ = alphabet[group >> shift & 63];
    }
    if (size) {
        u32 group = (u32)in[0] << 16 | (size > 1 ? (u32)in[1] << 8 : 0);
        *out++ = alphabet[group >> 18];
        *out++ = alphabet[group >> 12 & 63];
        *out++ = size > 1 ? alphabet[group >> 6 & 63] : '=';
        *out++ = '=';
    }
    return (u32)(out - begin);
}

NOINLINE static u32 decode(const char *in, u32 size, u8 *out) {
    u8 *begin = out;
    u32 group = 0, bits = 0;
    for (; size-- && *in != '='; in++) {
        if (values[(u8)*in] < 0) return 0;
        group = group << 6 | (u32)values[(u8)*in];
        if ((bits += 6) >= 8) *out++ = (u8)(group >> (bits -= 8));
    }
    return (u32)(out - begin);
}

KERNEL(base64, 940) {
    u64 digest = 0;
    u32 size = SIZE - random_word() % 3;
    memset(values, -1, sizeof values);
    for (u32 i = 0; i < 64; i++) values[(u8)alphabet[i]] = (s8)i;
    for (u32 i = 0; i < size; i++) data[i] = (u8)random_word();
    u32 length = encode(data, size, coded);
    CHECK(decode(coded, length, decoded) == size);
    CHECK(memcmp(data, decoded, size) == 0);
    for (u32 i = 0; i < length; i += 4) digest = mixed(digest, (u64)coded[i] << 8 | (u64)coded[i + 1]);
    return digest;
}
