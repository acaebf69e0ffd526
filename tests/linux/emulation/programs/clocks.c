/* Time: clocks, sleeping, timers of every kind. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static volatile int ticks, value;
static void tick(int number, siginfo_t *info, void *context) { ticks++; value = info->si_value.sival_int; }

int main(void)
{
    double start = now(CLOCK_MONOTONIC);
    struct timespec t = {0, 30000000};
    printf("nanosleep %d", nanosleep(&t, NULL));
    double slept = now(CLOCK_MONOTONIC) - start;
    printf(" long enough %d\n", slept >= 0.03 && slept < 5);
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += 20000000;
    if (t.tv_nsec >= 1000000000) { t.tv_nsec -= 1000000000; t.tv_sec++; }
    printf("absolute %d\n", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
    t = (struct timespec){0, -1};
    printf("invalid %d\n", clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL));
    struct timeval v;
    gettimeofday(&v, NULL);
    printf("clocks agree %d\n", now(CLOCK_REALTIME) - v.tv_sec < 2 && time(NULL) >= v.tv_sec);
    printf("bad clock %d %s\n", clock_gettime(77, &t), strerror(errno));
    clock_getres(CLOCK_MONOTONIC, &t);
    printf("resolution %ld\n", t.tv_nsec);
    for (volatile long i = 0; i < 5000000; i++);
    printf("cpu time %d %d\n", now(CLOCK_PROCESS_CPUTIME_ID) > 0, clock() > 0);
    struct tms parts;
    printf("times %d\n", times(&parts) != -1);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec every = {{0, 5000000}, {0, 5000000}}, left;
    printf("timerfd %d", timerfd_settime(fd, 0, &every, NULL));
    usleep(30000);
    uint64_t expirations = 0;
    read(fd, &expirations, 8);
    timerfd_gettime(fd, &left);
    printf(" several %d interval %ld\n", expirations >= 4, left.it_interval.tv_nsec);
    struct sigaction action = {.sa_sigaction = tick, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGRTMIN, &action, NULL);
    alarm(1);
    pause();
    printf("alarm %d\n", ticks);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value = {.sival_int = 99}};
    timer_t timer;
    printf("timer %d", timer_create(CLOCK_MONOTONIC, &event, &timer));
    timer_settime(timer, 0, &every, NULL);
    ticks = 0;
    while (ticks < 3) pause();
    printf(" value %d", value);
    printf(" deleted %d\n", timer_delete(timer));
    struct itimerval virtual_ = {{0, 0}, {0, 10000}};
    sigaction(SIGVTALRM, &action, NULL);
    ticks = 0;
    setitimer(ITIMER_VIRTUAL, &virtual_, NULL);
    while (!ticks);
    printf("virtual %d\n", ticks);
    return 0;
}
