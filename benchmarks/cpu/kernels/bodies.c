/* Double precision: a few bodies under gravity, with division and square roots. */
#include "kernel.h"

enum { BODIES = 5 };
static double position[BODIES][3], velocity[BODIES][3];

KERNEL(bodies, 100) {
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++) {
            position[i][k] = (double)(random_word() % 1000) / 100.0;
            velocity[i][k] = 0.0;
        }
    for (int step = 0; step < 1500; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0.01;
                for (int k = 0; k < 3; k++) {
                    d[k] = position[i][k] - position[j][k];
                    square += d[k] * d[k];
                }
                double pull = 0.001 / (square * __builtin_sqrt(square));
                for (int k = 0; k < 3; k++) {
                    velocity[i][k] -= d[k] * pull;
                    velocity[j][k] += d[k] * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++) position[i][k] += velocity[i][k] * 0.01;
    }
    double sum = 0.0;
    for (int i = 0; i < BODIES; i++) sum += position[i][0] + velocity[i][1];
    return bits_of(sum);
}
