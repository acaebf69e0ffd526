/* Integer matrix product. */
#include "kernel.h"

enum { ORDER = 72 };
static u32 left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];

KERNEL(matrix, 200) {
    for (int i = 0; i < ORDER; i++)
        for (int j = 0; j < ORDER; j++) {
            left[i][j] = random_word();
            right[i][j] = random_word();
        }
    for (int i = 0; i < ORDER; i++)
        for (int j = 0; j < ORDER; j++) {
            u32 sum = 0;
            for (int k = 0; k < ORDER; k++) sum += left[i][k] * right[k][j];
            product[i][j] = sum;
        }
    u64 digest = 0;
    for (int i = 0; i < ORDER; i++) digest = digest * 33 + product[i][ORDER - 1 - i];
    return digest;
}
