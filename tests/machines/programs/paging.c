/* Sv39: a page of data is seen at another address. Then a breakpoint's place, and an end by the finisher. */
#include "guest.h"

static u64 root[512] __attribute__((aligned(4096))), middle[512] __attribute__((aligned(4096)));
static u64 leaf[512] __attribute__((aligned(4096)));
char page[4096] __attribute__((aligned(4096))) = "what is in the page";

__attribute__((noinline)) void place(u64 value) { __asm__ volatile("" :: "r"(value) : "memory"); }

void main(u64 hart, u64 tree)
{
    root[0] = 0x200000ul >> 2 << 0 | 0xcf;
    root[0] = 0 | 0xcf;
    root[2] = 0x80000000ul >> 2 | 0xcf;
    root[256] = (u64)middle >> 2 | 1;
    middle[0] = (u64)leaf >> 2 | 1;
    leaf[3] = (u64)page >> 2 | 0xc7;
    set(satp, 8ul << 60 | (u64)root >> 12);
    __asm__ volatile("sfence.vma");
    print("translating\n");
    place(*(u64 *)0xffffffc000003000);
    *(volatile u32 *)0x100000 = 7 << 16 | 0x3333;
}
