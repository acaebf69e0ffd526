/* Much code and little repetition: hundreds of different functions called in a random order. */
#include "kernel.h"

typedef u64 (*function)(u64, u64);
#define FUNCTION(n)                                                        \
    NOINLINE static u64 function_##n(u64 a, u64 b) {                       \
        u64 c = a * (0x##n##u * 2 + 1) + (b >> (0x##n##u % 29 + 1));       \
        if (c & 1u << (0x##n##u % 17)) c ^= b << (0x##n##u % 13);          \
        for (u64 i = a & 3; i; i--) c = (c >> 7 | c << 57) + 0x##n##u;     \
        return (c & 64) ? c - a : c + (b ^ 0x##n##u);                      \
    }
#define EACH_16(what, n) \
    what(n##0) what(n##1) what(n##2) what(n##3) what(n##4) what(n##5) what(n##6) what(n##7) \
    what(n##8) what(n##9) what(n##a) what(n##b) what(n##c) what(n##d) what(n##e) what(n##f)
#define EACH_256(what, n) \
    EACH_16(what, n##0) EACH_16(what, n##1) EACH_16(what, n##2) EACH_16(what, n##3) \
    EACH_16(what, n##4) EACH_16(what, n##5) EACH_16(what, n##6) EACH_16(what, n##7) \
    EACH_16(what, n##8) EACH_16(what, n##9) EACH_16(what, n##a) EACH_16(what, n##b) \
    EACH_16(what, n##c) EACH_16(what, n##d) EACH_16(what, n##e) EACH_16(what, n##f)
EACH_256(FUNCTION, 1)
EACH_256(FUNCTION, 2)
#define NAME(n) function_##n,
static const function functions[] = {EACH_256(NAME, 1) EACH_256(NAME, 2)};

KERNEL(large_code, 160) {
    u64 a = 1, b = 2;
    for (u32 i = 0; i < 8000; i++) {
        u64 c = functions[random_word() % ITEMS(functions)](a, b);
        a = b;
        b = c;
    }
    return a ^ b;
}
