/* Solving a dense linear system: LU decomposition with partial pivoting. */
#include "kernel.h"

enum { ORDER = 60 };
static double matrix[ORDER][ORDER], side[ORDER], expected[ORDER];

static double magnitude(double x) { return x < 0.0 ? -x : x; }

NOINLINE static void eliminate(void) {
    for (int k = 0; k < ORDER; k++) {
        int pivot = k;
        for (int i = k + 1; i < ORDER; i++)
            if (magnitude(matrix[i][k]) > magnitude(matrix[pivot][k])) pivot = i;
        for (int j = 0; j < ORDER; j++) {
            double kept = matrix[k][j];
            matrix[k][j] = matrix[pivot][j];
            matrix[pivot][j] = kept;
        }
        double kept = side[k];
        side[k] = side[pivot];
        side[pivot] = kept;
        for (int i = k + 1; i < ORDER; i++) {
            double factor = matrix[i][k] / matrix[k][k];
            for (int j = k; j < ORDER; j++) matrix[i][j] -= factor * matrix[k][j];
            side[i] -= factor * side[k];
        }
    }
}

KERNEL(linear_system, 180) {
    u64 digest = 0;
    for (int i = 0; i < ORDER; i++) expected[i] = (double)(random_word() % 200) - 100.0;
    for (int i = 0; i < ORDER; i++) {
        side[i] = 0.0;
        for (int j = 0; j < ORDER; j++) {
            matrix[i][j] = (double)(random_word() % 1000) / 500.0 - 1.0;
            side[i] += matrix[i][j] * expected[j];
        }
    }
    eliminate();
    for (int i = ORDER; i-- > 0;) {
        for (int j = i + 1; j < ORDER; j++) side[i] -= matrix[i][j] * side[j];
        side[i] /= matrix[i][i];
        CHECK(magnitude(side[i] - expected[i]) < 1e-3);
        digest = mixed(digest, bits_of(side[i]));
    }
    return digest;
}
