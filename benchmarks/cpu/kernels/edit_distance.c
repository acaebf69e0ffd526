/* Dynamic programming: the edit distance and the longest common subsequence of two texts. */
#include "kernel.h"

enum { LENGTH = 220 };
static u8 left[LENGTH], right[LENGTH];
static u16 distances[2][LENGTH + 1], lengths[LENGTH + 1][LENGTH + 1];

static u16 least(u16 a, u16 b) { return a < b ? a : b; }

NOINLINE static u32 edit_distance(void) {
    for (u32 j = 0; j <= LENGTH; j++) distances[0][j] = (u16)j;
    for (u32 i = 1; i <= LENGTH; i++) {
        u16 *above = distances[(i - 1) & 1], *row = distances[i & 1];
        row[0] = (u16)i;
        for (u32 j = 1; j <= LENGTH; j++) {
            u16 changed = (u16)(above[j - 1] + (left[i - 1] != right[j - 1]));
            row[j] = least(changed, (u16)(least(above[j], row[j - 1]) + 1));
        }
    }
    return distances[LENGTH & 1][LENGTH];
}
NOINLINE static u32 common_subsequence(void) {
    for (u32 i = 1; i <= LENGTH; i++)
        for (u32 j = 1; j <= LENGTH; j++) {
            u16 up = lengths[i - 1][j], across = lengths[i][j - 1];
            u16 both = (u16)(lengths[i - 1][j - 1] + 1);
            lengths[i][j] = left[i - 1] == right[j - 1] ? both : up > across ? up : across;
        }
    return lengths[LENGTH][LENGTH];
}

KERNEL(edit_distance, 260) {
    for (u32 i = 0; i < LENGTH; i++) {
        left[i] = (u8)(random_word() % 5);
        right[i] = random_word() % 3 ? left[i] : (u8)(random_word() % 5);
    }
    u32 distance = edit_distance(), common = common_subsequence();
    CHECK(distance >= LENGTH - common && distance <= 2 * (LENGTH - common));
    return (u64)distance << 32 | common;
}
