/* The Mandelbrot set: double-precision iteration with a data-dependent end. */
#include "kernel.h"

enum { WIDTH = 64, HEIGHT = 48, LIMIT = 200 };

KERNEL(mandelbrot, 34) {
    u64 digest = 0;
    for (int row = 0; row < HEIGHT; row++)
        for (int column = 0; column < WIDTH; column++) {
            double cr = column * 3.0 / WIDTH - 2.2, ci = row * 2.4 / HEIGHT - 1.2, re = 0.0, im = 0.0;
            u32 count = 0;
            while (count < LIMIT && re * re + im * im <= 4.0) {
                double next = re * re - im * im + cr;
                im = 2.0 * re * im + ci;
                re = next;
                count++;
            }
            digest = mixed(digest, count);
        }
    return digest;
}
