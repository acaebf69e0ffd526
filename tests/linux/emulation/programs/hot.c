/* Code that gets hot while everything else happens: forks, signals, faults, new code, execve. */

#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define TURNS 10000000

static uint64_t mixed(uint64_t value, long turns)
{
    for (long turn = 0; turn < turns; turn++) {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
    }
    return value;
}

/* Signals that arrive in a loop lose nothing of what it computes. */

static volatile sig_atomic_t alarms;
static volatile double sum_of_handler;

static void on_alarm(int number)
{
    alarms++;
    for (int i = 0; i < 100; i++)
        sum_of_handler += 1.0 / (i + 1);
}

static void signals(void)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    uint64_t value = mixed(1, 3 * TURNS);
    setitimer(ITIMER_REAL, &never, NULL);
    printf("signals %016lx %s\n", value, alarms > 3 ? "interrupted" : "too quick");
}

/* Children go on with what was compiled before, and wait(2) knows of no other. */

static void children(void)
{
    for (int number = 0; number < 3; number++) {
        pid_t child = fork();
        if (child == 0) {
            uint64_t value = mixed(number + 2, TURNS);
            if (number == 2) {
                pid_t grandchild = fork();
                if (grandchild == 0)
                    _exit(mixed(value, TURNS) & 63);
                int status;
                waitpid(grandchild, &status, 0);
                value += WEXITSTATUS(status);
            }
            _exit(value & 127);
        }
        mixed(number, TURNS / 4);
    }
    int total = 0, status;
    while (wait(&status) > 0)
        total += WEXITSTATUS(status);
    printf("children %d %s\n", total, strerror(errno));
}

/* Faults in the middle of a hot loop, mended by a handler or left by longjmp. */

static char *pages;
static int faults;
static sigjmp_buf out;

static void on_fault(int number, siginfo_t *info, void *context)
{
    faults++;
    char *page = (char *)((uintptr_t)info->si_addr & -PAGE);
    if (page < pages || page >= pages + 64 * PAGE)
        siglongjmp(out, 1);
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
}

static void mended(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    pages = mmap(NULL, 64 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t total = 0;
    for (int round = 0; round < 40; round++) {
        for (volatile char *place = pages; place < pages + 64 * PAGE; place += 8)
            total += ++*place;
        mprotect(pages, 64 * PAGE, round % 2 ? PROT_NONE : PROT_READ);
    }
    volatile long turns = 0;
    if (sigsetjmp(out, 1) == 0)
        for (volatile char *place = pages;; place += PAGE, turns++)
            *place = 1;
    printf("faults %d %lu %ld\n", faults, total, turns);
}

/* A compiler of its own: the same place gets new code again and again. */

static void new_code(void)
{
    uint32_t *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t total = 0;
    for (unsigned number = 0; number < 400; number++) {
        code[0] = 0x00050513 | number << 20; /* addi a0, a0, number */
        code[1] = 0xfff58593;                /* addi a1, a1, -1 */
        code[2] = 0xfe059ce3;                /* bnez a1, -8 */
        code[3] = 0x00008067;                /* ret */
        __builtin___clear_cache((char *)code, (char *)(code + 4));
        total += ((uint64_t(*)(uint64_t, uint64_t))code)(number, 20000);
    }
    printf("code %lu\n", total);
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    if (count > 1) {
        printf("executed %016lx\n", mixed(9, TURNS));
        return 7;
    }
    signals();
    children();
    mended();
    new_code();
    execl("/proc/self/exe", words[0], "again", NULL);
    return 1;
}
