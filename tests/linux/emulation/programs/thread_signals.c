// Signals and threads: which thread a signal comes to, and what that does to the others.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread volatile int hits;
static __thread sigjmp_buf back;
static _Atomic int begun, total;
static pthread_t first;

static void hit(int number, siginfo_t *info, void *context) {
    hits++;
    total++;
}

static void on(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigaction(number, &action, 0);
}

static void mask(int how, int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(how, &set, 0);
}

static void *block_in_read(void *argument) {
    int *pipe = argument;
    char byte;
    begun++;
    int result = read(pipe[0], &byte, 1);
    int interrupted = result < 0 && errno == EINTR;
    return (void *)(long)(interrupted * 10 + hits);
}

static void *spin(void *argument) {
    begun++;
    while (!hits) continue;
    return (void *)(long)hits;
}

static void to_one(void) {
    int pipes[2];
    pthread_t reader, spinner;
    void *read_result, *spin_result;
    pipe(pipes);
    begun = 0;
    pthread_create(&reader, 0, block_in_read, pipes);
    pthread_create(&spinner, 0, spin, 0);
    while (begun < 2) usleep(1000);
    usleep(50000);
    pthread_kill(reader, SIGUSR1);
    pthread_join(reader, &read_result);
    pthread_kill(spinner, SIGUSR1);
    pthread_join(spinner, &spin_result);
    printf("one: reader %ld, spinner %ld, first %d\n", (long)read_result, (long)spin_result, hits);
}

static void *restarted(void *argument) {
    int *pipe = argument;
    char byte = 0;
    begun++;
    int result = read(pipe[0], &byte, 1);
    return (void *)(long)(result * 100 + (byte == 'x') * 10 + hits);
}

static void restarting(void) {
    int pipes[2];
    pthread_t thread;
    void *result;
    pipe(pipes);
    begun = 0;
    pthread_create(&thread, 0, restarted, pipes);
    while (!begun) usleep(1000);
    usleep(50000);
    pthread_kill(thread, SIGUSR2);
    usleep(50000);
    write(pipes[1], "x", 1);
    pthread_join(thread, &result);
    printf("restarted: %ld\n", (long)result);
}

static void *take_all(void *argument) {
    mask(SIG_UNBLOCK, SIGTERM);
    begun++;
    while (hits < 3) pause();
    return (void *)(long)hits;
}

static void to_any(void) {
    pthread_t thread;
    void *result;
    begun = 0;
    mask(SIG_BLOCK, SIGTERM);
    pthread_create(&thread, 0, take_all, 0);
    while (!begun) usleep(1000);
    for (int i = 1; i <= 3; i++) {
        int before = total;
        kill(getpid(), SIGTERM);
        while (total == before) usleep(1000);
    }
    pthread_join(thread, &result);
    printf("any: thread %ld, first %d\n", (long)result, hits);
}

static void *wait_for(void *argument) {
    sigset_t set;
    int number = 0;
    sigemptyset(&set);
    sigaddset(&set, (int)(long)argument);
    begun++;
    sigwait(&set, &number);
    return (void *)(long)number;
}

static void waiting(void) {
    pthread_t threads[3];
    begun = 0;
    for (int i = 0; i < 3; i++) mask(SIG_BLOCK, SIGRTMIN + i);
    for (long i = 0; i < 3; i++) pthread_create(&threads[i], 0, wait_for, (void *)(SIGRTMIN + i));
    while (begun < 3) usleep(1000);
    kill(getpid(), SIGRTMIN + 1);
    pthread_kill(threads[0], SIGRTMIN);
    kill(getpid(), SIGRTMIN + 2);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        printf("waited: %d\n", (int)(long)result - SIGRTMIN);
    }
}

static void *suspend(void *argument) {
    sigset_t none;
    sigemptyset(&none);
    begun++;
    while (!hits) sigsuspend(&none);
    return (void *)(long)hits;
}

static void suspending(void) {
    pthread_t threads[4];
    long sum = 0;
    begun = 0;
    mask(SIG_BLOCK, SIGUSR1);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, suspend, 0);
    while (begun < 4) usleep(1000);
    for (int i = 3; i >= 0; i--) pthread_kill(threads[i], SIGUSR1);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result;
    }
    mask(SIG_UNBLOCK, SIGUSR1);
    printf("suspended: %ld, first %d\n", sum, hits);
}

static volatile char *faulted;
static pthread_t fault_thread;

static void fault(int number, siginfo_t *info, void *context) {
    faulted = info->si_addr;
    fault_thread = pthread_self();
    siglongjmp(back, number);
}

static long deeper(volatile char *above) {
    volatile char frame[512];
    frame[0] = above ? above[0] + 1 : 1;
    return deeper(frame) + frame[0];
}

static void *misbehave(void *argument) {
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&stack, 0);
    int number = sigsetjmp(back, 1);
    if (!number) {
        if (argument) *(volatile int *)argument = 1;
        deeper(0);
    }
    stack_t present;
    sigaltstack(0, &present);
    return (void *)(long)(number * 10 + (fault_thread == pthread_self()) + (present.ss_size == 65536) * 1000);
}

static void faulting(void) {
    pthread_t thread;
    void *result;
    stack_t present;
    pthread_create(&thread, 0, misbehave, (void *)64);
    pthread_join(thread, &result);
    printf("fault: %ld at %p\n", (long)result, faulted);
    pthread_create(&thread, 0, misbehave, 0);
    pthread_join(thread, &result);
    sigaltstack(0, &present);
    printf("overflow: %ld, stack of the first %d\n", (long)result, present.ss_flags == SS_DISABLE);
    begun = 0;
    pthread_create(&thread, 0, spin, 0);
    while (!begun) usleep(1000);
    struct sigaction action = {.sa_sigaction = hit, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, 0);
    pthread_kill(thread, SIGSEGV);
    pthread_join(thread, &result);
    printf("sent fault: %ld\n", (long)result);
}

static _Atomic int cleaned;
static void clean(void *argument) { cleaned += (int)(long)argument; }

static void *cancelled(void *argument) {
    pthread_cleanup_push(clean, (void *)1);
    if (argument) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, 0);
    begun++;
    if (argument) for (;;) continue;
    for (;;) sleep(100);
    pthread_cleanup_pop(0);
    return 0;
}

static void *reluctant(void *argument) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, 0);
    begun++;
    usleep(50000);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, 0);
    pthread_testcancel();
    return 0;
}

static void cancelling(void) {
    void *(*functions[3])(void *) = {cancelled, cancelled, reluctant};
    for (long i = 0; i < 3; i++) {
        pthread_t thread;
        void *result;
        begun = 0;
        pthread_create(&thread, 0, functions[i], (void *)i);
        while (!begun) usleep(1000);
        usleep(20000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        printf("cancelled: %d, cleaned %d\n", result == PTHREAD_CANCELED, cleaned);
    }
}

static void *inherit(void *argument) {
    sigset_t present, waiting;
    pthread_sigmask(0, 0, &present);
    sigpending(&waiting);
    return (void *)(long)(sigismember(&present, SIGHUP) * 100 + sigismember(&present, SIGINT) * 10 +
                          sigismember(&waiting, SIGHUP));
}

static void inheriting(void) {
    pthread_t thread;
    void *result;
    mask(SIG_BLOCK, SIGHUP);
    pthread_kill(pthread_self(), SIGHUP);
    pthread_create(&thread, 0, inherit, 0);
    pthread_join(thread, &result);
    sigset_t waiting;
    sigpending(&waiting);
    printf("inherited: %ld, first waits %d\n", (long)result, sigismember(&waiting, SIGHUP));
    mask(SIG_UNBLOCK, SIGHUP);
    printf("unblocked: %d\n", hits);
}

static void *alarm_thread(void *argument) {
    for (int i = 0; i < 20; i++) {
        // Two of a kind that wait at the same time are one.
        int before = total;
        pthread_kill(first, SIGUSR1);
        while (total == before) usleep(1000);
    }
    return 0;
}

static void interrupting(void) {
    // The thread that a signal is not for goes on sleeping.
    pthread_t thread;
    struct timespec until = {.tv_nsec = 100000000};
    int before = hits;
    first = pthread_self();
    pthread_create(&thread, 0, alarm_thread, 0);
    int interrupted = 0;
    while (hits < before + 20)
        if (nanosleep(&until, 0) < 0) interrupted = 1;
    pthread_join(thread, 0);
    printf("interrupted: %d, %d\n", interrupted, hits - before);
}

int main(void) {
    first = pthread_self();
    on(SIGUSR1, hit, 0);
    on(SIGUSR2, hit, SA_RESTART);
    on(SIGTERM, hit, SA_RESTART);
    on(SIGHUP, hit, 0);
    on(SIGSEGV, fault, SA_ONSTACK);
    to_one();
    restarting();
    to_any();
    waiting();
    suspending();
    faulting();
    cancelling();
    inheriting();
    interrupting();
    return 0;
}
