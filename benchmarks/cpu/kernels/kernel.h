/* What the kernels share: types, their registration, random numbers, checks, and the memory functions of C.
 *
 *     KERNEL(sieve, 120) { ... return digest; }
 *
 * makes a function one of the program's kernels. The number says how often it is repeated to take about a
 * tenth of a second under qemu-user on a current machine; the benchmark programs read it from the source.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef unsigned __int128 u128;

struct kernel {
    const char *name;
    u64 (*run)(void);
};

#define KERNEL(name, rounds)                                                                      \
    static u64 run_##name(void);                                                                  \
    __attribute__((section("kernels"), used)) const struct kernel kernel_##name = {#name, run_##name}; \
    static u64 run_##name(void)

#define NOINLINE __attribute__((noinline))
#define ITEMS(array) (sizeof(array) / sizeof((array)[0]))
/* The compiler knows nothing of the variable's value from here on. */
#define OPAQUE(variable) __asm__ volatile("" : "+r"(variable) : : "memory")
/* A kernel that finds its own result wrong ends the program with a message. */
#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition))

__attribute__((noreturn)) void check_failed(const char *condition);

/* 31 bits of a linear congruential generator that each kernel starts anew. */
u32 random_word(void);
/* One step of a running digest. */
static inline u64 mixed(u64 digest, u64 value) { return (digest ^ value) * 0x100000001b3u + (digest >> 47); }
static inline u64 bits_of(double number) {
    union { double number; u64 bits; } image = {number};
    return image.bits;
}

void *memset(void *target, int value, size_t size);
void *memcpy(void *restrict target, const void *restrict source, size_t size);
void *memmove(void *target, const void *source, size_t size);
int memcmp(const void *left, const void *right, size_t size);

#endif
