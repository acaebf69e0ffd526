/* Characters of the UART come back in upper case, by interrupts of the PLIC; a dot ends it. */
#include "guest.h"

#define uart ((volatile u8 *)0x10000000)
#define plic(offset) (*(volatile u32 *)(0xc000000 + (offset)))

void main(u64 hart, u64 tree)
{
    plic(40) = 1;
    plic(0x2080) = 1 << 10;
    uart[2] = 1;
    uart[1] = 1;
    print("ready\n");
    set(sie, 1 << 9);
    for (;;) {
        wfi();
        u32 source = plic(0x201004);
        while (uart[5] & 1) {
            u8 c = uart[0];
            uart[0] = c >= 'a' && c <= 'z' ? c - 32 : c;
            if (c == '.') power_off();
        }
        if (source) plic(0x201004) = source;
    }
}
