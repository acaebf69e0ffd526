/* A state machine over characters: which pieces of a text are integers, decimals, exponents or neither. */
#include "kernel.h"

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, POWER, INVALID, STATES };
enum { TEXT = 8000 };
static char text[TEXT];

static int digit(char c) { return c >= '0' && c <= '9'; }

NOINLINE static enum state step(enum state state, char c) {
    switch (state) {
    case START: return digit(c) ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN: return digit(c) ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER: return digit(c) ? INTEGER : c == '.' ? FRACTION : (c | 32) == 'e' ? EXPONENT : INVALID;
    case POINT: return digit(c) ? FRACTION : INVALID;
    case FRACTION: return digit(c) ? FRACTION : (c | 32) == 'e' ? EXPONENT : INVALID;
    case EXPONENT: return digit(c) ? POWER : c == '+' || c == '-' ? EXPONENT_SIGN : INVALID;
    case EXPONENT_SIGN:
    case POWER: return digit(c) ? POWER : INVALID;
    default: return INVALID;
    }
}

KERNEL(scanner, 510) {
    static const char alphabet[] = "0123456789012345678901234567890123456789+-.eE,,,,,x";
    u32 finals[STATES] = {0}, visits[STATES] = {0};
    u64 digest = 0;
    for (u32 i = 0; i < TEXT - 1; i++) text[i] = alphabet[random_word() % (sizeof alphabet - 1)];
    text[TEXT - 1] = ',';
    enum state state = START;
    for (u32 i = 0; i < TEXT; i++) {
        if (text[i] == ',') {
            finals[state]++;
            state = START;
        } else {
            state = step(state, text[i]);
            visits[state]++;
        }
    }
    for (u32 i = 0; i < STATES; i++) digest = mixed(digest, (u64)finals[i] << 32 | visits[i]);
    return digest;
}
