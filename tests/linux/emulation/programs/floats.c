/* Floating point as C programs use it: printing, parsing, functions, rounding, exceptions. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    volatile double zero = 0, one = 1, three = 3, huge = DBL_MAX, tiny = DBL_MIN;
    printf("%f %e %g %a\n", 1 / 3.0, 1e300 / 7, 1e-5, M_PI);
    printf("%.20f %.0f %10.3f|%-10.2e|%+g\n", 0.1, 2.5, -3.14159, 6.02214076e23, 42.0);
    printf("%f %f %f %f\n", one / zero, -one / zero, zero / zero, sqrt(-one));
    printf("%a %a %a\n", strtod("0x1.8p-1060", NULL), strtod("2.2250738585072011e-308", NULL), strtod("1e400", NULL));
    printf("%.17g %.17g %.17g %.17g\n", sin(1e6), cos(three), exp(three), pow(three, 0.1));
    printf("%.17g %.17g %.17g %.9g\n", log(three), atan2(one, three), tgamma(4.5), (double)sqrtf(2.0f));
    printf("%.17g %.17g %.17g\n", fma(0.1, 10, -1), fmod(10, three), remainder(10, three));
    printf("%ld %ld %ld %ld\n", lrint(2.5), lround(2.5), (long)-2.9, (long)floor(-2.1));
    printf("%d %u %ld\n", (int)(three * 1e9 > 2e9), (unsigned)3e9, (long)(float)16777217);
    printf("%d %d %d\n", isnan(fmin(NAN, 1) + NAN), fmin(NAN, 1) == 1, signbit(-0.0) != 0);
    printf("%.21Lg %.21Lg\n", 1.0L / 3, sqrtl(2.0L));
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        printf("%d: %a %a %ld %a\n", fegetround(), one / three, -one / three, lrint(2.5), (double)(float)(one / three));
    }
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
    volatile double result = one / three;
    printf("inexact %x\n", fetestexcept(FE_ALL_EXCEPT));
    result = huge * huge;
    printf("overflow %x\n", fetestexcept(FE_ALL_EXCEPT));
    result = tiny / three / huge;
    result = one / zero;
    result = zero / zero;
    printf("all %x\n", fetestexcept(FE_ALL_EXCEPT));
    feclearexcept(FE_OVERFLOW | FE_INVALID);
    printf("some %x\n", fetestexcept(FE_ALL_EXCEPT));
    double sum = 0;
    for (int i = 1; i < 100000; i++) sum += 1.0 / i / i * (i & 1 ? 1 : -1);
    printf("%.17g\n", sum);
    float single = 0;
    for (int i = 1; i < 100000; i++) single += 1.0f / (float)i;
    printf("%.9g\n", (double)single);
    return 0;
}
