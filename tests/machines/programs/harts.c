/* Harts that are started, add, interrupt the first one, and stop; twice. */
#include "guest.h"

#define HARTS 4
static volatile u64 sum, stopped[HARTS], seen[HARTS];

static void add(u64 value) { __asm__ volatile("amoadd.d zero, %1, %0" : "+A"(sum) : "r"(value)); }

static void second(u64 hart, u64 argument)
{
    seen[hart] = argument;
    for (int i = 0; i < 10000; i++) add(hart);
    sbi(IPI, 0, 1, 0);
    sbi(HSM, 1, 0, 0);
    print("a hart was not stopped\n");
}

static void round(u64 number)
{
    for (u64 hart = 1; hart < HARTS; hart++) {
        while (sbi(HSM, 2, hart, 0).value != 1) ;
        long error = sbi3(HSM, 0, hart, (u64)secondary, number * 100 + hart).error;
        if (error) show("start", error);
    }
    while (sum != number * 10000 * (1 + 2 + 3)) {
        set(sie, 2);
        wfi();
        clear_bits(sip, 2);
    }
    for (u64 hart = 1; hart < HARTS; hart++) {
        while (sbi(HSM, 2, hart, 0).value != 1) ;
        show("argument", seen[hart]);
    }
}

void main(u64 hart, u64 argument)
{
    if (hart) second(hart, argument);
    round(1);
    round(2);
    show("sum", sum);
    show("running", sbi(HSM, 0, 0, (u64)secondary).error);
    show("no such hart", sbi(HSM, 0, HARTS, (u64)secondary).error);
    power_off();
}
