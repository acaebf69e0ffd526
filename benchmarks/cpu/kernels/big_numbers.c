/* Numbers of 2048 bits: multiplication by columns, and powers modulo an odd number after Montgomery. */
#include "kernel.h"

enum { WORDS = 32, SHORT = 8 };
typedef u64 number[WORDS];

NOINLINE static void multiply(const u64 *a, const u64 *b, u64 *product, u32 words) {
    memset(product, 0, 2 * words * sizeof *product);
    for (u32 i = 0; i < words; i++) {
        u64 carry = 0;
        for (u32 j = 0; j < words; j++) {
            u128 sum = (u128)a[i] * b[j] + product[i + j] + carry;
            product[i + j] = (u64)sum;
            carry = (u64)(sum >> 64);
        }
        product[i + words] = carry;
    }
}

/* result = a * b / 2^(64 words) modulo m. */
NOINLINE static void montgomery(const u64 *a, const u64 *b, const u64 *m, u64 inverse, u64 *result,
                                u32 words) {
    u64 t[2 * WORDS + 1], borrow = 0, over = 0;
    multiply(a, b, t, words);
    for (u32 i = 0; i < words; i++) {
        u64 factor = t[i] * inverse, carry = 0;
        for (u32 j = 0; j < words; j++) {
            u128 sum = (u128)factor * m[j] + t[i + j] + carry;
            t[i + j] = (u64)sum;
            carry = (u64)(sum >> 64);
        }
        u128 sum = (u128)t[i + words] + carry + over;
        t[i + words] = (u64)sum;
        over = (u64)(sum >> 64);
    }
    for (u32 i = 0; i < words; i++) {
        u128 difference = (u128)t[words + i] - m[i] - borrow;
        result[i] = (u64)difference;
        borrow = (u64)(difference >> 64) & 1;
    }
    if (borrow > over) memcpy(result, t + words, words * sizeof *result);
}

static void random_number(u64 *out, u32 words) {
    for (u32 i = 0; i < words; i++) {
        u64 high = random_word(), middle = random_word();
        out[i] = high << 33 ^ middle << 11 ^ random_word();
    }
}

KERNEL(big_numbers, 850) {
    number a, b, power;
    u64 product[2 * WORDS], digest = 0, m[SHORT], inverse = 1;
    random_number(a, WORDS);
    random_number(b, WORDS);
    multiply(a, b, product, WORDS);
    for (u32 i = 0; i < 2 * WORDS; i++) digest = mixed(digest, product[i]);
    random_number(m, SHORT);
    m[0] |= 1;
    m[SHORT - 1] |= (u64)1 << 63;
    for (int i = 0; i < 6; i++) inverse *= 2 - m[0] * inverse;
    CHECK(inverse * m[0] == 1);
    memcpy(power, a, sizeof power);
    for (u32 bit = 0; bit < 64; bit++) {
        montgomery(power, power, m, -inverse, power, SHORT);
        if (b[0] >> bit & 1) montgomery(power, a, m, -inverse, power, SHORT);
    }
    for (u32 i = 0; i < SHORT; i++) digest = mixed(digest, power[i]);
    return digest;
}
