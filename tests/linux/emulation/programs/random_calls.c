/* Random system calls with random arguments, in many children: `random_calls FIRST LAST` prints how they ended.
   Left out is what would reach other processes, stop the program for long, or write to the test's own output. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long state;

static unsigned long next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static char area[1 << 16], *mapped;

static unsigned long argument(void)
{
    switch (next() % 12) {
    case 0: return 0;
    case 1: return next() % 16;
    case 2: return -1ul - next() % 4096;
    case 3: return (unsigned long)area + next() % 4096;
    case 4: return (unsigned long)mapped + next() % 65536;
    case 5: return next();
    case 6: return 1ul << next() % 64;
    case 7: return 0x4000000000ul - next() % 8192;
    case 8: return next() % 4096;
    case 9: return (unsigned long)area;
    case 10: return (unsigned long)mapped;
    default: return next() % 64 * 4096;
    }
}

static int excluded(long number, unsigned long first)
{
    static const int calls[] = {
        SYS_exit, SYS_exit_group, SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
        SYS_pidfd_send_signal, SYS_rt_sigreturn, SYS_clone, SYS_clone3, SYS_nanosleep, SYS_clock_nanosleep,
        SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_pselect6, SYS_ppoll, SYS_futex, SYS_waitid, SYS_wait4, SYS_reboot,
    };
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i] == number) return 1;
    int descriptor = number == SYS_close || number == SYS_close_range || number == SYS_dup3 || number == SYS_write;
    return descriptor && first < 3;
}

static void run(int seed)
{
    state = seed * 0x9E3779B97F4A7C15ul + 1;
    alarm(5);
    mapped = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 400; i++) {
        long number = next() % 460;
        unsigned long a[6];
        for (int k = 0; k < 6; k++) a[k] = argument();
        if (next() % 3 == 0)
            for (int k = 0; k < 64; k++) area[next() % 4096] = next();
        if (!excluded(number, a[0])) syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
}

int main(int count, char **arguments)
{
    int exited = 0, killed = 0, failed = 0;
    if (getuid() == 0 && (setgid(65534) || setuid(65534))) return 3;
    for (int seed = atoi(arguments[1]); seed < atoi(arguments[2]); seed++) {
        pid_t child = fork();
        if (child == 0) { run(seed); _exit(0); }
        int status;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) killed++;
        else if (WEXITSTATUS(status)) failed++;
        else exited++;
    }
    printf("failed %d, all %d\n", failed, exited + killed + failed);
    return 0;
}
