/* The spectral norm of an infinite matrix by the power method: divisions of converted integers. */
#include "kernel.h"

enum { ORDER = 60 };
static double u[ORDER], v[ORDER], between[ORDER];

static double element(int i, int j) { return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1); }

NOINLINE static void multiply(const double *in, double *out, int transposed) {
    for (int i = 0; i < ORDER; i++) {
        double sum = 0.0;
        for (int j = 0; j < ORDER; j++) sum += (transposed ? element(j, i) : element(i, j)) * in[j];
        out[i] = sum;
    }
}

KERNEL(spectral_norm, 120) {
    double vbv = 0.0, vv = 0.0;
    for (int i = 0; i < ORDER; i++) u[i] = 1.0;
    for (int step = 0; step < 6; step++) {
        multiply(u, between, 0);
        multiply(between, v, 1);
        multiply(v, between, 0);
        multiply(between, u, 1);
    }
    for (int i = 0; i < ORDER; i++) {
        vbv += u[i] * v[i];
        vv += v[i] * v[i];
    }
    double norm = __builtin_sqrt(vbv / vv);
    CHECK(norm > 1.27 && norm < 1.28);
    return bits_of(norm);
}
