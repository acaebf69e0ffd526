/* A compressor in the manner of LZ77: hash chains find matches, a byte format like LZ4's holds them. */
#include "kernel.h"

enum { SIZE = 16000, HASHES = 4096, LEAST = 4, CHAIN = 16 };
static u8 data[SIZE], packed[SIZE + SIZE / 8], unpacked[SIZE];
static s32 heads[HASHES], previous[SIZE];

static u32 hash_at(u32 at) {
    u32 word = (u32)data[at] | (u32)data[at + 1] << 8 | (u32)data[at + 2] << 16 | (u32)data[at + 3] << 24;
    return word * 2654435761u >> 20;
}

static u8 *put_length(u8 *out, u32 length) {
    for (; length >= 255; length -= 255) *out++ = 255;
    *out++ = (u8)length;
    return out;
}

static u8 *put_literals(u8 *out, const u8 *from, u32 count) {
    out = put_length(out, count);
    memcpy(out, from, count);
    return out + count;
}

NOINLINE static u32 longest_match(u32 at, u32 *distance) {
    u32 best = 0, tries = CHAIN;
    for (s32 from = heads[hash_at(at)]; from >= 0 && tries--; from = previous[from]) {
        u32 length = 0;
        while (at + length < SIZE && data[(u32)from + length] == data[at + length]) length++;
        if (length > best && at - (u32)from < 65536) {
            best = length;
            *distance = at - (u32)from;
        }
    }
    return best;
}

static void remember(u32 at) {
    if (at + LEAST > SIZE) return;
    u32 hash = hash_at(at);
    previous[at] = heads[hash];
    heads[hash] = (s32)at;
}

NOINLINE static u32 pack(void) {
    u8 *out = packed;
    u32 at = 0, literal = 0;
    for (u32 i = 0; i < HASHES; i++) heads[i] = -1;
    while (at + LEAST <= SIZE) {
        u32 distance = 0, length = longest_match(at, &distance);
        if (length < LEAST) {
            remember(at++);
            continue;
        }
        out = put_literals(out, data + literal, at - literal);
        *out++ = (u8)distance;
        *out++ = (u8)(distance >> 8);
        out = put_length(out, length - LEAST);
        while (length--) remember(at++);
        literal = at;
    }
    out = put_literals(out, data + literal, SIZE - literal);
    return (u32)(out - packed);
}

static u32 get_length(const u8 **in) {
    u32 length = 0;
    while (**in == 255) length += *(*in)++;
    return length + *(*in)++;
}

NOINLINE static u32 unpack(const u8 *in, const u8 *end) {
    u8 *out = unpacked;
    for (;;) {
        u32 count = get_length(&in);
        memcpy(out, in, count);
        out += count;
        in += count;
        if (in >= end) return (u32)(out - unpacked);
        u32 distance = (u32)in[0] | (u32)in[1] << 8;
        in += 2;
        for (count = get_length(&in) + LEAST; count--; out++) *out = out[-(ptrdiff_t)distance];
    }
}

KERNEL(compressor, 110) {
    u64 digest = 0;
    for (u32 at = 0; at < SIZE;) {
        u32 length = 1 + random_word() % 30, repeat = at > 100 && random_word() % 3;
        u32 from = random_word() % (at + 1);
        for (; length-- && at < SIZE; at++, from++)
            data[at] = repeat ? data[from] : (u8)('a' + random_word() % 20);
    }
    u32 size = pack();
    CHECK(size < SIZE && unpack(packed, packed + size) == SIZE);
    CHECK(memcmp(data, unpacked, SIZE) == 0);
    for (u32 i = 0; i < size; i++) digest = mixed(digest, packed[i]);
    return digest;
}
