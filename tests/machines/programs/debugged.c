/* Something to debug: two harts that count, data at another address than its own, a call, a timer that ticks. */
#pragma GCC optimize("O0")
#include "guest.h"

static u64 root[512] __attribute__((aligned(4096))), middle[512] __attribute__((aligned(4096)));
static u64 leaf[512] __attribute__((aligned(4096)));
char page[4096] __attribute__((aligned(4096))) = "what is in the page";
volatile u64 counter, counted_by_second, ready, traps;

__attribute__((noinline)) u64 twice(u64 number)
{
    __asm__ volatile("");
    return 2 * number;
}

__attribute__((noinline)) void work(u64 number)
{
    counter = twice(number);
}

void second(u64 hart, u64 argument)
{
    ready = argument;
    for (;;) counted_by_second++;
}

__attribute__((interrupt("supervisor"), aligned(4))) void trapped(void)
{
    traps++;
    set(sepc, get(sepc) + 4);
}

void main(u64 hart, u64 tree)
{
    if (hart) second(hart, tree);
    set(stvec, trapped);
    root[0] = 0xcf;
    root[2] = 0x80000000ul >> 2 | 0xcf;
    root[256] = (u64)middle >> 2 | 1;
    middle[0] = (u64)leaf >> 2 | 1;
    leaf[3] = (u64)page >> 2 | 0xc7;
    set(satp, 8ul << 60 | (u64)root >> 12);
    __asm__ volatile("sfence.vma");
    if (sbi3(HSM, 0, 1, (u64)secondary, 42).error == 0)
        while (!ready) ;
    __asm__ volatile(".option push\n.option norvc\nebreak\n.option pop");
    for (u64 number = 1; ; number++) {
        work(number);
        *(volatile char *)0xffffffc000003000 = 'W';
    }
}
