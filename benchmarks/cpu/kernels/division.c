/* Divisions of all widths and signs: greatest common divisors, decimal digits, powers modulo a number. */
#include "kernel.h"

NOINLINE static u64 common_divisor(u64 a, u64 b) {
    while (b) {
        u64 rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}
NOINLINE static u32 digit_sum(u64 value, u64 base) {
    u32 sum = 0;
    for (; value; value /= base) sum += (u32)(value % base);
    return sum;
}
NOINLINE static u32 power(u32 base, u32 exponent, u32 modulus) {
    u64 result = 1, square = base % modulus;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = result * square % modulus;
        square = square * square % modulus;
    }
    return (u32)result;
}

KERNEL(division, 470) {
    u64 digest = 0, base = 10;
    OPAQUE(base);
    CHECK(power(3, 1000000006, 1000000007) == 1 && common_divisor(1071, 462) == 21);
    for (u32 i = 0; i < 600; i++) {
        u64 a = (u64)random_word() << 20 | i, b = random_word();
        s32 small = (s32)random_word() % 1000 - 500;
        digest = mixed(digest, common_divisor(a, b) + digit_sum(a, base));
        digest = mixed(digest, power((u32)a, (u32)b, (u32)b | 1));
        if (small) digest = mixed(digest, (u64)((s64)(a - b * 4096) / small) ^ (u64)(s64)((s32)b % small));
    }
    return digest;
}
