/* The firmware cannot be reached from S-mode. */
#include "guest.h"

__asm__(".balign 4\ntrap:\n  csrr t0, sepc\n  addi t0, t0, 4\n  csrw sepc, t0\n  sret\n");

static void attempt(u64 address)
{
    set(scause, 0);
    __asm__ volatile(".option push\n.option norvc\nlw t1, 0(%0)\n.option pop" :: "r"(address) : "t0", "t1");
    show("load", get(scause));
    set(scause, 0);
    __asm__ volatile(".option push\n.option norvc\nsw zero, 0(%0)\n.option pop" :: "r"(address) : "t0");
    show("store", get(scause));
}

void main(u64 hart, u64 tree)
{
    set(stvec, trap);
    attempt(0x1000);
    attempt(0x700);
    attempt(0x101000);
    power_off();
}
