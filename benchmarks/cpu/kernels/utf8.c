/* UTF-8: coding random characters, validating and decoding texts with and without damage. */
#include "kernel.h"

enum { CHARACTERS = 2000 };
static u32 characters[CHARACTERS];
static u8 text[4 * CHARACTERS];

static u8 *encode(u8 *out, u32 c) {
    if (c < 0x80) *out++ = (u8)c;
    else if (c < 0x800) *out++ = (u8)(0xc0 | c >> 6), *out++ = (u8)(0x80 | (c & 63));
    else if (c < 0x10000)
        *out++ = (u8)(0xe0 | c >> 12), *out++ = (u8)(0x80 | (c >> 6 & 63)), *out++ = (u8)(0x80 | (c & 63));
    else
        *out++ = (u8)(0xf0 | c >> 18), *out++ = (u8)(0x80 | (c >> 12 & 63)),
            *out++ = (u8)(0x80 | (c >> 6 & 63)), *out++ = (u8)(0x80 | (c & 63));
    return out;
}

/* The character at *at, which moves on; ~0 for what is no UTF-8 (one byte is skipped then). */
NOINLINE static u32 decode(const u8 **at, const u8 *end) {
    const u8 *p = *at;
    u32 c = *p++, more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    static const u32 least[] = {0, 0x80, 0x800, 0x10000};
    *at = p;
    if (more == 0) return c;
    if (c < 0xc2 || c > 0xf4 || (u32)(end - p) < more) return ~0u;
    c &= 0x3fu >> more;
    for (u32 i = 0; i < more; i++, p++) {
        if ((*p & 0xc0) != 0x80) return ~0u;
        c = c << 6 | (*p & 63);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return ~0u;
    *at = p;
    return c;
}

KERNEL(utf8, 760) {
    static const u32 limits[] = {0x80, 0x80, 0x80, 0x800, 0xd800, 0x110000};
    u8 *end = text;
    u64 digest = 0;
    for (u32 i = 0; i < CHARACTERS; i++) {
        u32 c = random_word() % limits[random_word() % ITEMS(limits)];
        if (c >= 0xd800 && c < 0xe000) c = 0xfffd;
        characters[i] = c;
        end = encode(end, c);
    }
    const u8 *at = text;
    for (u32 i = 0; i < CHARACTERS; i++) CHECK(decode(&at, end) == characters[i]);
    CHECK(at == end);
    for (u32 i = 0; i < 200; i++) text[random_word() % (u32)(end - text)] = (u8)random_word();
    for (at = text; at < end;) digest = mixed(digest, decode(&at, end));
    return digest;
}
