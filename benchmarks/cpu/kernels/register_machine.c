/* A virtual machine with a register file, computing Collatz lengths: an unpredictable switch. */
#include "kernel.h"

enum { OP_LOAD, OP_MOVE, OP_ADD, OP_MULTIPLY, OP_HALVE, OP_ODD, OP_EQUAL, OP_JUMP, OP_MAX, OP_LESS, OP_STOP };
static const u8 program[] = {
    OP_LOAD, 0, 1,  OP_LOAD, 7, 1,  OP_LOAD, 6, 3,                                         /*  0 */
    OP_MOVE, 1, 0,  OP_LOAD, 2, 0,                                                         /*  9: next */
    OP_EQUAL, 1, 44, OP_ADD, 2, 7,  OP_ODD, 1, 36, OP_HALVE, 1, 1,                         /* 15: step */
    OP_JUMP, 0, 15, OP_STOP, 0, 0,  OP_STOP, 0, 0,                                         /* 27 */
    OP_MULTIPLY, 1, 6, OP_ADD, 1, 7, OP_JUMP, 15, 15,                                      /* 36: odd */
    OP_MAX, 3, 2,   OP_ADD, 0, 7,   OP_LESS, 0, 9, OP_STOP, 0, 0,                          /* 45: done */
};

NOINLINE static u64 interpret(const u8 *code, u64 limit) {
    u64 r[8] = {0};
    u32 pc = 0;
    for (;;) {
        u8 op = code[pc], a = code[pc + 1], b = code[pc + 2];
        pc += 3;
        switch (op) {
        case OP_LOAD: r[a] = b; break;
        case OP_MOVE: r[a] = r[b]; break;
        case OP_ADD: r[a] += r[b]; break;
        case OP_MULTIPLY: r[a] *= r[b]; break;
        case OP_HALVE: r[a] = r[b] >> 1; break;
        case OP_ODD: if (r[a] & 1) pc = b; break;
        case OP_EQUAL: if (r[a] == 1) pc = b + 1; break;
        case OP_JUMP: pc = b; break;
        case OP_MAX: if (r[b] > r[a]) r[a] = r[b]; break;
        case OP_LESS: if (r[a] < limit) pc = b; break;
        default: return r[3] * 65536 + r[0];
        }
    }
}

KERNEL(machine, 39) {
    const u8 *code = program;
    OPAQUE(code);
    return interpret(code, 900);
}
