/* The debug console of SBI, and what cannot be printed. */
#include "guest.h"

static const char text[] = "printed at once\n";

void main(u64 hart, u64 tree)
{
    struct result done = sbi3(DBCN, 0, sizeof text - 1, (u64)text, 0);
    show("error", done.error);
    show("bytes", done.value);
    show("no memory", sbi3(DBCN, 0, 1, 0x10, 0).error);
    show("device", sbi3(DBCN, 0, 1, 0x10000000, 0).error);
    show("beyond", sbi3(DBCN, 0, 16, (u64)text, 1).error);
    sbi(DBCN, 2, '!', 0);
    print("\n");
    sbi(SRST, 0, 1, 0);
    for (;;) wfi();
}
