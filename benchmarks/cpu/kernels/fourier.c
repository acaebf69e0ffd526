/* The fast Fourier transform of 1024 complex doubles and back. */
#include "kernel.h"

enum { SIZE = 1024 };
struct complex { double re, im; };
static struct complex signal[SIZE], roots[SIZE / 2];

/* cos and sin of 2 pi k / SIZE by their series: the argument stays below pi. */
static struct complex root(int k) {
    double x = 6.283185307179586 * k / SIZE, term = 1.0, cosine = 0.0, sine = 0.0;
    for (int n = 0; n < 30; n++) {
        if (n % 2 == 0) cosine += n % 4 ? -term : term;
        else sine += n % 4 == 3 ? -term : term;
        term = term * x / (n + 1);
    }
    return (struct complex){cosine, sine};
}

NOINLINE static void transform(struct complex *a, double direction) {
    for (u32 i = 1, j = 0; i < SIZE; i++) {
        u32 bit = SIZE >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            struct complex kept = a[i];
            a[i] = a[j];
            a[j] = kept;
        }
    }
    for (u32 half = 1; half < SIZE; half *= 2)
        for (u32 i = 0; i < SIZE; i += 2 * half)
            for (u32 k = 0; k < half; k++) {
                struct complex w = roots[k * (SIZE / 2 / half)], u = a[i + k], v = a[i + k + half];
                double im = w.im * direction, re = v.re * w.re - v.im * im;
                im = v.re * im + v.im * w.re;
                a[i + k] = (struct complex){u.re + re, u.im + im};
                a[i + k + half] = (struct complex){u.re - re, u.im - im};
            }
}

KERNEL(fourier, 220) {
    double first;
    u64 digest = 0;
    for (int k = 0; k < SIZE / 2; k++) roots[k] = root(k);
    for (u32 i = 0; i < SIZE; i++) signal[i] = (struct complex){(double)(random_word() % 2000) - 1000.0, 0.0};
    first = signal[0].re;
    transform(signal, -1.0);
    for (u32 i = 0; i < SIZE; i += 16) digest = mixed(digest, bits_of(signal[i].re) ^ bits_of(signal[i].im));
    transform(signal, 1.0);
    double error = signal[0].re / SIZE - first;
    CHECK(error < 1e-6 && error > -1e-6);
    return digest;
}
