/* A timer's interrupts, counted while something is computed; two harts if there are two. */
#include "guest.h"

static volatile u64 ticks[2], work[2];

__asm__(".balign 4\ntrap:\n"
        "  addi sp, sp, -128\n"
        "  sd ra, 0(sp)\n  sd t0, 8(sp)\n  sd t1, 16(sp)\n  sd t2, 24(sp)\n  sd a0, 32(sp)\n  sd a1, 40(sp)\n"
        "  sd a2, 48(sp)\n  sd a3, 56(sp)\n  sd a4, 64(sp)\n  sd a5, 72(sp)\n  sd a6, 80(sp)\n  sd a7, 88(sp)\n"
        "  call tick\n"
        "  ld ra, 0(sp)\n  ld t0, 8(sp)\n  ld t1, 16(sp)\n  ld t2, 24(sp)\n  ld a0, 32(sp)\n  ld a1, 40(sp)\n"
        "  ld a2, 48(sp)\n  ld a3, 56(sp)\n  ld a4, 64(sp)\n  ld a5, 72(sp)\n  ld a6, 80(sp)\n  ld a7, 88(sp)\n"
        "  addi sp, sp, 128\n  sret\n");

void tick(void)
{
    u64 hart = get(sscratch);
    ticks[hart]++;
    __asm__ volatile("csrw 0x14d, %0" :: "r"(get(time) + 37 + 11 * hart));
}

void main(u64 hart, u64 tree)
{
    if (hart == 0) sbi3(HSM, 0, 1, (u64)secondary, 0);
    set(sscratch, hart);
    set(stvec, trap);
    set(sie, 1 << 5);
    __asm__ volatile("csrw 0x14d, %0" :: "r"(get(time) + 50));
    set_bits(sstatus, 2);
    for (u64 i = 0; i < 20000; i++) {
        work[hart] += i * ticks[hart];
        if (i % 1000 == 0) wfi();
    }
    if (hart) for (;;) wfi();
    show("ticks", ticks[0]);
    show("other", ticks[1]);
    show("work", work[0] ^ work[1]);
    show("time", get(time));
    show("instructions", get(instret));
    power_off();
}
