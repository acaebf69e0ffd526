/* Nothing to do, ever. */
#include "guest.h"

void main(u64 hart, u64 tree)
{
    print("asleep\n");
    for (;;) wfi();
}
