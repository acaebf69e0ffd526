/* Objects with tables of functions: calls through two loads, their targets in an unpredictable order. */
#include "kernel.h"

struct shape;
struct methods {
    s64 (*area)(const struct shape *);
    s64 (*outline)(const struct shape *);
    void (*grow)(struct shape *, s64);
};
struct shape { const struct methods *methods; s64 a, b, c; };

NOINLINE static s64 square_area(const struct shape *s) { return s->a * s->a; }
NOINLINE static s64 square_outline(const struct shape *s) { return 4 * s->a; }
NOINLINE static void square_grow(struct shape *s, s64 by) { s->a += by; }
NOINLINE static s64 box_area(const struct shape *s) { return s->a * s->b; }
NOINLINE static s64 box_outline(const struct shape *s) { return 2 * (s->a + s->b); }
NOINLINE static void box_grow(struct shape *s, s64 by) { s->a += by; s->b -= by / 2; }
NOINLINE static s64 trapezoid_area(const struct shape *s) { return (s->a + s->b) * s->c / 2; }
NOINLINE static s64 trapezoid_outline(const struct shape *s) { return s->a + s->b + 2 * s->c; }
NOINLINE static void trapezoid_grow(struct shape *s, s64 by) { s->c += by; }
NOINLINE static s64 cube_area(const struct shape *s) { return 6 * s->methods->outline(s) + s->a; }
NOINLINE static s64 cube_outline(const struct shape *s) { return 12 * s->a; }

static const struct methods kinds[] = {
    {square_area, square_outline, square_grow},
    {box_area, box_outline, box_grow},
    {trapezoid_area, trapezoid_outline, trapezoid_grow},
    {cube_area, cube_outline, square_grow},
};
enum { SHAPES = 500 };
static struct shape shapes[SHAPES];

KERNEL(virtual_calls, 110) {
    u64 digest = 0;
    for (u32 i = 0; i < SHAPES; i++) {
        const struct methods *kind = &kinds[random_word() % ITEMS(kinds)];
        shapes[i] = (struct shape){kind, random_word() % 100, random_word() % 100, 7};
    }
    for (s64 step = 0; step < 40; step++) {
        s64 areas = 0, outlines = 0;
        for (u32 i = 0; i < SHAPES; i++) {
            struct shape *shape = &shapes[i];
            areas += shape->methods->area(shape);
            outlines ^= shape->methods->outline(shape);
            shape->methods->grow(shape, step - 19);
        }
        digest = mixed(digest, (u64)(areas + outlines));
    }
    return digest;
}
