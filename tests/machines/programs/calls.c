/* What every implementation of SBI answers the same. */
#include "guest.h"

static u64 data[4];

void main(u64 hart, u64 tree)
{
    show("hart", hart);
    show("magic", *(u32 *)tree);
    u64 known[] = {BASE, TIME, IPI, RFENCE, HSM, SRST, 0x99};
    for (int i = 0; i < 7; i++) {
        struct result there = sbi(BASE, 3, known[i], 0);
        show("probe", there.error << 8 | there.value);
    }
    show("missing", sbi(0x12345678, 0, 0, 0).error);
    show("no such function", sbi(HSM, 99, 0, 0).error);
    show("status", sbi(HSM, 2, 0, 0).value);
    show("no such hart", sbi(HSM, 2, 77, 0).error);
    show("started", sbi(HSM, 0, 0, 0).error);
    show("reset of no type", sbi(SRST, 0, 77, 0).error);
    show("bad mask", sbi(IPI, 0, 1, 1000).error);
    show("sie", get(sie));
    show("sstatus.sie", get(sstatus) & 2);
    show("satp", get(satp));
    data[0] = sbi(IPI, 0, 1, 0).error;
    show("sent", data[0]);
    show("sip", get(sip) & 2);
    clear_bits(sip, 2);
    show("sip", get(sip) & 2);
    show("fence", sbi(RFENCE, 1, 1, 0).error);
    show("timer", sbi(TIME, 0, get(time) + 1000, 0).error);
    set(sie, 1 << 5);
    wfi();
    show("sip", get(sip) & 32);
    show("timer", sbi(TIME, 0, -1ul, 0).error);
    show("sip", get(sip) & 32);
    power_off();
}
