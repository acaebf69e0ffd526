/* Harts that are suspended: what wakes them, and where they go on. */
#include "guest.h"

static volatile u64 seen[4];
extern char again[];
__asm__("again:\n"
        "  la sp, seen\n  sd a0, 0(sp)\n  sd a1, 8(sp)\n  csrr t0, satp\n  sd t0, 16(sp)\n"
        "  csrr t0, sstatus\n  andi t0, t0, 2\n  sd t0, 24(sp)\n  la sp, stack + 4096\n  j resumed\n"
        ".bss\n.balign 4096\nstack: .skip 4096\n.text\n");

static void sleep_until(u64 delay) { __asm__ volatile("csrw 0x14d, %0" :: "r"(get(time) + delay)); }

void resumed(void)
{
    show("hart", seen[0]);
    show("argument", seen[1]);
    show("satp", seen[2]);
    show("sstatus.sie", seen[3]);
    show("sie", get(sie));
    show("sip", get(sip));
    show("other", sbi(HSM, 2, 1, 0).value);
    sbi(IPI, 0, 2, 0);
    while (sbi(HSM, 2, 1, 0).value != 1) ;
    show("stopped", sbi(HSM, 2, 1, 0).value);
    power_off();
}

void main(u64 hart, u64 tree)
{
    if (hart == 1) {
        set(sie, 1 << 1);
        sbi(HSM, 3, 0, 0);
        sbi(HSM, 1, 0, 0);
    }
    show("no such type", sbi(HSM, 3, 1, 0).error);
    show("of no platform", sbi(HSM, 3, 0x10000000, 0).error);
    show("nowhere", sbi3(HSM, 3, 0x80000000, 0, 0).error);
    show("in the firmware", sbi3(HSM, 0, 1, 0x1000, 0).error);
    sbi3(HSM, 0, 1, (u64)secondary, 0);
    while (sbi(HSM, 2, 1, 0).value != 4) ;
    set(sie, 1 << 5);
    sleep_until(1000);
    show("retentive", sbi(HSM, 3, 0, 0).error);
    show("late", get(sip) >> 5 & 1);
    sleep_until(1000);
    sbi3(HSM, 3, 0x80000000, (u64)again, 77);
    print("not here\n");
}
