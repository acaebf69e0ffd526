/* 128-bit arithmetic: products, quotients, shifts and comparisons of what takes two registers. */
#include "kernel.h"

static u128 random_wide(void) {
    u128 value = 0;
    for (u32 words = 1 + random_word() % 5; words--;) value = value << 31 ^ random_word();
    return value;
}
static u64 folded(u128 value) { return (u64)value ^ (u64)(value >> 64); }

KERNEL(wide_integers, 660) {
    u64 digest = 0;
    __int128 balance = 0;
    for (u32 i = 0; i < 1200; i++) {
        u128 a = random_wide(), b = random_wide() | 1, quotient = a / b, rest = a % b;
        CHECK(quotient * b + rest == a && rest < b);
        digest = mixed(digest, folded(quotient) ^ folded(rest));
        digest = mixed(digest, folded(a * b) + folded(a >> (i & 127)) + folded(b << (i & 63)));
        balance += (__int128)a >> (i % 100);
        if (balance < (__int128)b) balance = -balance;
    }
    return mixed(digest, folded((u128)balance));
}
