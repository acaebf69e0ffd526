/* Single precision: rays against spheres, with square roots, comparisons and conversions to bytes. */
#include "kernel.h"

struct vector { float x, y, z; };
struct sphere { struct vector centre; float radius, brightness; };
enum { SPHERES = 6, WIDTH = 40, HEIGHT = 30 };
static struct sphere spheres[SPHERES];

static struct vector minus(struct vector a, struct vector b) {
    return (struct vector){a.x - b.x, a.y - b.y, a.z - b.z};
}
static struct vector times(struct vector a, float f) { return (struct vector){a.x * f, a.y * f, a.z * f}; }
static float dot(struct vector a, struct vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static struct vector unit(struct vector a) { return times(a, 1.0f / __builtin_sqrtf(dot(a, a))); }

NOINLINE static const struct sphere *nearest(struct vector from, struct vector along, float *distance) {
    const struct sphere *hit = 0;
    for (const struct sphere *sphere = spheres; sphere < spheres + SPHERES; sphere++) {
        struct vector to = minus(sphere->centre, from);
        float b = dot(to, along), square = b * b - dot(to, to) + sphere->radius * sphere->radius;
        if (square < 0.0f) continue;
        float at = b - __builtin_sqrtf(square);
        if (at > 0.001f && at < *distance) {
            *distance = at;
            hit = sphere;
        }
    }
    return hit;
}

static float shade(struct vector from, struct vector along, int depth) {
    float distance = 1e9f;
    const struct sphere *hit = nearest(from, along, &distance);
    if (!hit) return 0.5f + 0.5f * along.y;
    struct vector at = minus(from, times(along, -distance)), normal = unit(minus(at, hit->centre));
    struct vector light = unit((struct vector){0.5f, 0.8f, -0.4f});
    float far = 1e9f, value = dot(normal, light) * hit->brightness;
    if (value < 0.0f || nearest(at, light, &far)) value = 0.05f;
    if (depth) value += 0.4f * shade(at, minus(along, times(normal, 2.0f * dot(along, normal))), depth - 1);
    return value;
}

KERNEL(rays, 63) {
    u64 digest = 0;
    for (u32 i = 0; i < SPHERES; i++) {
        float x = (float)(random_word() % 400) / 100.0f - 2.0f;
        float y = (float)(random_word() % 300) / 100.0f - 1.5f;
        spheres[i] = (struct sphere){{x, y, 3.0f + (float)i}, 0.5f + (float)i * 0.1f, 0.9f};
    }
    for (int row = 0; row < HEIGHT; row++)
        for (int column = 0; column < WIDTH; column++) {
            float right = (float)(column - WIDTH / 2) / 20.0f, up = (float)(HEIGHT / 2 - row) / 20.0f;
            struct vector along = {right, up, 1.0f};
            float value = shade((struct vector){0.0f, 0.0f, 0.0f}, unit(along), 2);
            digest = mixed(digest, value > 1.0f ? 255 : (u64)(s32)(value * 255.0f));
        }
    return digest;
}
