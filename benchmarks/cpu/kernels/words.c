/* Text: words counted in a hash table, bytes one by one. */
#include "kernel.h"

enum { TEXT = 20000, BUCKETS = 512 };
static char text[TEXT];
static u32 buckets[BUCKETS];

KERNEL(strings, 400) {
    for (u32 i = 0; i < TEXT - 1; i++) {
        u32 word = random_word();
        text[i] = word % 6 ? (char)('a' + word % 23) : ' ';
    }
    text[TEXT - 1] = 0;
    for (u32 i = 0; i < BUCKETS; i++) buckets[i] = 0;
    for (const char *at = text; *at;) {
        while (*at == ' ') at++;
        u32 code = 2166136261u;
        while (*at && *at != ' ') code = (code ^ (u8)*at++) * 16777619u;
        buckets[code % BUCKETS]++;
    }
    u64 digest = 0;
    for (u32 i = 0; i < BUCKETS; i++) digest = digest * 7 + buckets[i];
    return digest;
}
