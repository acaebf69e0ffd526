/* The console of the firmware: characters one by one, then as many as there are. */
#include "guest.h"

static char buffer[64];

void main(u64 hart, u64 tree)
{
    show("nothing", sbi(2, 0, 0, 0).error);
    show("read", sbi3(DBCN, 1, 64, (u64)buffer, 0).value);
    print("type\n");
    long c;
    for (int i = 0; i < 3; i++) {
        while ((c = sbi(2, 0, 0, 0).error) < 0) ;
        put(c);
    }
    print("\n");
    for (int i = 0; i < 4;) {
        struct result got = sbi3(DBCN, 1, 64, (u64)(buffer + i), 0);
        i += got.value;
    }
    print(buffer);
    print("\n");
    show("device", sbi3(DBCN, 1, 4, 0x101000, 0).error);
    show("firmware", sbi3(DBCN, 0, 4, 0x1000, 0).error);
    u64 mask = 1;
    show("legacy", sbi(4, 0, (u64)&mask, 0).error);
    show("sip", get(sip));
    show("cleared", sbi(3, 0, 0, 0).error);
    show("cleared", sbi(3, 0, 0, 0).error);
    show("fence", sbi(5, 0, (u64)&mask, 0).error | sbi(6, 0, 0, 0).error | sbi(7, 0, (u64)&mask, 0).error);
    show("no mask", sbi(4, 0, 8, 0).error);
    show("at the end", sbi(4, 0, -4ul, 0).error);
    show("of a device", sbi(4, 0, 0x101000, 0).error);
    power_off();
}
