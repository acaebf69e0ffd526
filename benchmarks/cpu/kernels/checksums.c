/* Cyclic redundancy checks: CRC-16 bit by bit, CRC-32 by table, and Adler-32. */
#include "kernel.h"

enum { SIZE = 6000 };
static u8 data[SIZE];
static u32 table[256];

NOINLINE static u16 crc16(const u8 *bytes, u32 size) {
    u16 crc = 0xffff;
    while (size--) {
        crc ^= (u16)(*bytes++ << 8);
        for (int bit = 0; bit < 8; bit++) crc = (u16)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

NOINLINE static u32 crc32(const u8 *bytes, u32 size) {
    u32 crc = ~0u;
    while (size--) crc = crc >> 8 ^ table[(crc ^ *bytes++) & 255];
    return ~crc;
}

NOINLINE static u32 adler32(const u8 *bytes, u32 size) {
    u32 a = 1, b = 0;
    while (size--) {
        a = (a + *bytes++) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

KERNEL(checksums, 300) {
    static const u8 test[] = "123456789";
    for (u32 i = 0; i < 256; i++) {
        u32 value = i;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        table[i] = value;
    }
    CHECK(crc16(test, 9) == 0x29b1 && crc32(test, 9) == 0xcbf43926u && adler32(test, 9) == 0x091e01deu);
    for (u32 i = 0; i < SIZE; i++) data[i] = (u8)random_word();
    return (u64)crc32(data, SIZE) << 32 ^ (u64)adler32(data, SIZE) << 16 ^ crc16(data, SIZE);
}
