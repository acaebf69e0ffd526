/* Pictures: 8-bit blending with saturation, a 16-bit blur, a histogram and a conversion of colours. */
#include "kernel.h"

enum { WIDTH = 96, HEIGHT = 64 };
static u8 red[HEIGHT][WIDTH], green[HEIGHT][WIDTH], blue[HEIGHT][WIDTH], grey[HEIGHT][WIDTH];
static u16 deep[HEIGHT][WIDTH], blurred[HEIGHT][WIDTH];
static u32 histogram[256];

static u8 saturated(s32 value) { return (u8)(value < 0 ? 0 : value > 255 ? 255 : value); }

NOINLINE static void convert(void) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            grey[y][x] = (u8)((77 * red[y][x] + 150 * green[y][x] + 29 * blue[y][x]) >> 8);
            deep[y][x] = (u16)(grey[y][x] * 257);
        }
}
NOINLINE static void blur(void) {
    for (int y = 1; y < HEIGHT - 1; y++)
        for (int x = 1; x < WIDTH - 1; x++) {
            u32 near = deep[y - 1][x] + deep[y + 1][x] + deep[y][x - 1] + deep[y][x + 1];
            u32 sum = 4u * deep[y][x] + 2u * near;
            sum += deep[y - 1][x - 1] + deep[y - 1][x + 1] + deep[y + 1][x - 1] + deep[y + 1][x + 1];
            blurred[y][x] = (u16)(sum >> 4);
        }
}
NOINLINE static void sharpen(s8 amount) {
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            s16 difference = (s16)(grey[y][x] - (blurred[y][x] >> 8));
            red[y][x] = saturated(red[y][x] + difference * amount / 16);
            blue[y][x] = saturated(blue[y][x] - difference);
            histogram[red[y][x]]++;
        }
}

KERNEL(pixels, 250) {
    u64 digest = 0;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            u32 word = random_word();
            red[y][x] = (u8)word, green[y][x] = (u8)(word >> 8), blue[y][x] = (u8)(word >> 16);
        }
    for (u32 i = 0; i < 256; i++) histogram[i] = 0;
    for (s8 amount = -8; amount <= 8; amount = (s8)(amount + 4)) {
        convert();
        blur();
        sharpen(amount);
    }
    for (u32 i = 0; i < 256; i++) digest = mixed(digest, histogram[i]);
    return digest;
}
