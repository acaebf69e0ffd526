/* Numbers to text and back: integers and doubles, with conversions between all their types. */
#include "kernel.h"

static char text[64];

NOINLINE static u32 format(double value, u32 decimals) {
    char digits[32], *out = text;
    u32 count = 0;
    if (value < 0.0) {
        *out++ = '-';
        value = -value;
    }
    double scale = 1.0;
    for (u32 i = 0; i < decimals; i++) scale *= 10.0;
    u64 whole = (u64)(value * scale + 0.5);
    while (whole || count <= decimals) {
        digits[count++] = (char)('0' + whole % 10);
        whole /= 10;
    }
    while (count) {
        if (count == decimals) *out++ = '.';
        *out++ = digits[--count];
    }
    *out = 0;
    return (u32)(out - text);
}

NOINLINE static double parse(const char *s) {
    int negative = *s == '-';
    double value = 0.0, unit = 1.0;
    for (s += negative; *s >= '0' && *s <= '9'; s++) value = value * 10.0 + (double)(*s - '0');
    if (*s == '.')
        for (s++; *s; s++) value += (double)(*s - '0') * (unit /= 10.0);
    return negative ? -value : value;
}

KERNEL(conversions, 390) {
    u64 digest = 0;
    for (u32 i = 0; i < 900; i++) {
        double value = ((double)(s32)(random_word() - 0x40000000u)) / (double)(1 + random_word() % 5000);
        u32 length = format(value, i % 7);
        double again = parse(text), error = again - value;
        CHECK(error < 0.51 && error > -0.51);
        digest = mixed(digest, length + bits_of(again));
        float single = (float)value;
        digest = mixed(digest, (u64)(s64)single ^ (u64)(s64)(s32)value);
        digest = mixed(digest, bits_of((double)single + (double)(u64)i));
        digest = mixed(digest, (u64)(value < (double)single) << 1 | (single == (float)(s64)single));
    }
    return digest;
}
