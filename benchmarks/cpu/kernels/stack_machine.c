/* One byte code, a stack machine's, interpreted by a switch and by computed gotos. */
#include "kernel.h"

enum opcode { PUSH, LOAD, STORE, ADD, SUBTRACT, MULTIPLY, REMAINDER, LESS, IF_ZERO, GOTO, DROP, HALT };

/* The program is what `expected` does:
 * sum = 0; for (n = 1; n < limit; n++) { a = n; b = 360; while (b) { t = a % b; a = b; b = t; } sum += a * n; }
 */
enum { LIMIT, SUM, N, A, B, T, VARIABLES };
static const s16 code[] = {
    PUSH, 0, STORE, SUM, PUSH, 1, STORE, N,
    /*  8 */ LOAD, N, LOAD, LIMIT, LESS, IF_ZERO, 63,
    /* 15 */ LOAD, N, STORE, A, PUSH, 360, STORE, B,
    /* 23 */ LOAD, B, IF_ZERO, 44,
    /* 27 */ LOAD, A, LOAD, B, REMAINDER, STORE, T, LOAD, B, STORE, A, LOAD, T, STORE, B, GOTO, 23,
    /* 44 */ LOAD, SUM, LOAD, A, LOAD, N, MULTIPLY, ADD, STORE, SUM,
    /* 54 */ LOAD, N, PUSH, 1, ADD, STORE, N, GOTO, 8,
    /* 63 */ HALT,
};

NOINLINE static s64 by_switch(const s16 *pc, s64 *variables) {
    s64 stack[16], *top = stack;
    const s16 *begin = pc;
    for (;;) switch ((enum opcode)*pc++) {
        case PUSH: *top++ = *pc++; break;
        case LOAD: *top++ = variables[*pc++]; break;
        case STORE: variables[*pc++] = *--top; break;
        case ADD: top--; top[-1] += *top; break;
        case SUBTRACT: top--; top[-1] -= *top; break;
        case MULTIPLY: top--; top[-1] *= *top; break;
        case REMAINDER: top--; top[-1] %= *top; break;
        case LESS: top--; top[-1] = top[-1] < *top; break;
        case IF_ZERO: pc = *--top ? pc + 1 : begin + *pc; break;
        case GOTO: pc = begin + *pc; break;
        case DROP: top--; break;
        case HALT: return variables[SUM];
        }
}

NOINLINE static s64 by_goto(const s16 *pc, s64 *variables) {
    static const void *const labels[] = {&&push, &&load, &&store, &&add, &&subtract, &&multiply,
                                         &&remainder, &&less, &&if_zero, &&jump, &&drop, &&halt};
    s64 stack[16], *top = stack;
    const s16 *begin = pc;
#define NEXT goto *labels[*pc++]
    NEXT;
push: *top++ = *pc++; NEXT;
load: *top++ = variables[*pc++]; NEXT;
store: variables[*pc++] = *--top; NEXT;
add: top--; top[-1] += *top; NEXT;
subtract: top--; top[-1] -= *top; NEXT;
multiply: top--; top[-1] *= *top; NEXT;
remainder: top--; top[-1] %= *top; NEXT;
less: top--; top[-1] = top[-1] < *top; NEXT;
if_zero: pc = *--top ? pc + 1 : begin + *pc; NEXT;
jump: pc = begin + *pc; NEXT;
drop: top--; NEXT;
halt: return variables[SUM];
#undef NEXT
}

static u64 expected(s64 limit) {
    s64 sum = 0;
    for (s64 n = 1; n < limit; n++) {
        s64 a = n, b = 360;
        while (b) {
            s64 t = a % b;
            a = b;
            b = t;
        }
        sum += a * n;
    }
    return (u64)sum;
}

static u64 checked(s64 (*interpret)(const s16 *, s64 *)) {
    s64 variables[VARIABLES] = {[LIMIT] = 2000 + random_word() % 1000};
    u64 result = (u64)interpret(code, variables);
    CHECK(result == expected(variables[LIMIT]));
    return result;
}

KERNEL(switched, 70) { return checked(by_switch); }
KERNEL(threaded, 75) { return checked(by_goto); }
