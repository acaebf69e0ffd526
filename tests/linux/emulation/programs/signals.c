/* Signals: handlers with siginfo and context, masks, restarts, alternate stacks, faults and recovery. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t hits, order[16], last_code, last_value;
static void *volatile last_address;
static sigjmp_buf back;

static void count(int number) { order[hits++ & 15] = number; }

static void inform(int number, siginfo_t *info, void *context)
{
    order[hits++ & 15] = number;
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
    last_address = info->si_addr;
}

static void jump(int number, siginfo_t *info, void *context)
{
    last_code = info->si_code;
    last_address = info->si_addr;
    siglongjmp(back, number);
}

static void skip(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    last_code = info->si_code;
    uint16_t half = *(uint16_t *)u->uc_mcontext.__gregs[REG_PC];
    u->uc_mcontext.__gregs[REG_PC] += (half & 3) == 3 ? 4 : 2;
    u->uc_mcontext.__gregs[REG_A0] = 4711;
}

static void floats(int number)
{
    volatile double x = 1.0;
    for (int i = 0; i < 50; i++) x = x * 1.5 + number;
    hits++;
}

static void set(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL)) perror("sigaction");
}

static void mask(int how, int number)
{
    sigset_t wanted;
    sigemptyset(&wanted);
    if (number) sigaddset(&wanted, number);
    sigprocmask(how, &wanted, NULL);
}

static int overflow(int depth) { volatile char room[1000]; room[0] = depth; return overflow(depth + 1) + room[0]; }

static void later(int number, int milliseconds, const char *text, int fd)
{
    pid_t parent = getpid();
    if (fork() == 0) {
        usleep(milliseconds * 1000);
        kill(parent, number);
        if (text) { usleep(100000); write(fd, text, strlen(text)); }
        _exit(0);
    }
}

int main(void)
{
    char buffer[64];
    set(SIGUSR1, inform, 0);
    kill(getpid(), SIGUSR1);
    printf("kill: hits %d code %d\n", hits, last_code);
    union sigval value = {.sival_int = 4242};
    set(SIGRTMIN + 3, inform, 0);
    mask(SIG_BLOCK, SIGRTMIN + 3);
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGRTMIN + 3, (value.sival_int++, value));
    sigset_t pending;
    sigpending(&pending);
    printf("pending %d hits %d\n", sigismember(&pending, SIGRTMIN + 3), hits);
    mask(SIG_UNBLOCK, SIGRTMIN + 3);
    printf("queued: hits %d code %d last %d\n", hits, last_code, last_value);

    hits = 0;
    set(SIGUSR2, inform, 0);
    mask(SIG_BLOCK, SIGUSR1);
    mask(SIG_BLOCK, SIGUSR2);
    kill(getpid(), SIGUSR2);
    kill(getpid(), SIGUSR2);
    kill(getpid(), SIGUSR1);
    mask(SIG_SETMASK, 0);
    printf("two at once: hits %d\n", hits);

    int ends[2];
    pipe(ends);
    hits = 0;
    later(SIGUSR1, 100, "x", ends[1]);
    long got = read(ends[0], buffer, 1);
    printf("interrupted read %ld %s hits %d\n", got, got < 0 ? strerror(errno) : "", hits);
    wait(NULL);
    read(ends[0], buffer, 1);
    set(SIGUSR1, inform, SA_RESTART);
    later(SIGUSR1, 100, "y", ends[1]);
    got = read(ends[0], buffer, 1);
    printf("restarted read %ld %c hits %d\n", got, buffer[0], hits);
    wait(NULL);
    later(SIGUSR1, 100, NULL, 0);
    struct timespec one = {2, 0}, rest = {0, 0};
    got = nanosleep(&one, &rest);
    printf("sleep is not restarted: %ld %s, rest %d\n", got, strerror(errno), rest.tv_sec == 1);
    wait(NULL);
    pid_t child = fork();
    if (child == 0) { usleep(200000); _exit(3); }
    later(SIGUSR1, 50, NULL, 0);
    int status = 0;
    printf("wait restarted %d", waitpid(child, &status, 0) == child);
    printf(" %d\n", WEXITSTATUS(status));
    wait(NULL);

    hits = 0;
    mask(SIG_BLOCK, SIGUSR1);
    later(SIGUSR1, 50, NULL, 0);
    sigset_t none;
    sigemptyset(&none);
    got = sigsuspend(&none);
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    printf("sigsuspend %ld %s hits %d still blocked %d\n", got, strerror(errno), hits, sigismember(&now, SIGUSR1));
    wait(NULL);
    sigset_t wanted;
    siginfo_t info;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR1);
    struct timespec soon = {0, 10000000};
    got = sigtimedwait(&wanted, &info, &soon);
    printf("sigtimedwait %ld %s\n", got, strerror(errno));
    kill(getpid(), SIGUSR1);
    printf("sigtimedwait %d", sigwaitinfo(&wanted, &info));
    printf(" from myself %d hits %d\n", info.si_pid == getpid(), hits);
    mask(SIG_SETMASK, 0);

    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESETHAND}, old;
    sigaction(SIGHUP, &action, NULL);
    raise(SIGHUP);
    sigaction(SIGHUP, NULL, &old);
    printf("reset %d\n", old.sa_handler == SIG_DFL);
    printf("sigaction of SIGKILL: %d %s\n", sigaction(SIGKILL, &action, NULL), strerror(errno));
    printf("signal 99: %d %s\n", sigaction(99, &action, NULL), strerror(errno));
    printf("sigprocmask 9: %d %s\n", sigprocmask(9, &none, NULL), strerror(errno));

    signal(SIGALRM, floats);
    struct itimerval interval = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    hits = 0;
    setitimer(ITIMER_REAL, &interval, NULL);
    double sum = 0;
    long loops = 0;
    while (hits < 20) { for (int i = 0; i < 1000; i++) sum += i * 0.5; loops++; }
    setitimer(ITIMER_REAL, &off, NULL);
    printf("timer in a busy loop: hits %d exact %d\n", hits >= 20, sum == loops * 249750.0);

    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536}, was;
    printf("sigaltstack %d\n", sigaltstack(&stack, &was));
    printf("was %d\n", was.ss_flags == SS_DISABLE);
    stack.ss_size = 100;
    printf("too small %d %s\n", sigaltstack(&stack, NULL), strerror(errno));
    set(SIGSEGV, jump, SA_ONSTACK);
    set(SIGBUS, jump, 0);
    set(SIGILL, jump, 0);
    set(SIGTRAP, skip, 0);
    int number = sigsetjmp(back, 1);
    if (!number) *(volatile int *)8 = 1;
    printf("null pointer: signal %d code %d address %p\n", number, last_code, last_address);
    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    number = sigsetjmp(back, 1);
    if (!number) page[5000] = 1;
    printf("read-only page: signal %d code %d offset %ld\n", number, last_code, (char *)last_address - page);
    number = sigsetjmp(back, 1);
    if (!number) ((void (*)(void))page)();
    printf("not executable: signal %d code %d offset %ld\n", number, last_code, (char *)last_address - page);
    number = sigsetjmp(back, 1);
    if (!number) overflow(0);
    printf("stack overflow: signal %d\n", number);
    number = sigsetjmp(back, 1);
    if (!number) overflow(0);
    printf("and again: signal %d\n", number);
    int fd = open("short", O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 100);
    char *cut = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
    number = sigsetjmp(back, 1);
    if (!number) number = -cut[6000];
    printf("beyond the file: signal %d code %d offset %ld\n", number, last_code, (char *)last_address - cut);
    number = sigsetjmp(back, 1);
    if (!number) __asm__ volatile(".word 0");
    printf("illegal instruction: signal %d\n", number);
    register long a0 __asm__("a0") = 1;
    __asm__ volatile("ebreak" : "+r"(a0));
    printf("breakpoint: a0 %ld code %d\n", a0, last_code);
    set(SIGSEGV, inform, 0);
    hits = 0;
    raise(SIGSEGV);
    printf("raised SIGSEGV: hits %d\n", hits);
    set(SIGFPE, inform, 0);
    raise(SIGFPE);
    printf("raised SIGFPE: hits %d\n", hits);
    set(SIGCHLD, inform, SA_RESTART);
    hits = 0;
    child = fork();
    if (child == 0) _exit(7);
    waitpid(child, NULL, 0);
    printf("child: hits %d code %d\n", hits, last_code);
    return 0;
}
