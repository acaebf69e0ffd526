// The system call futex itself, between threads and between processes.
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long call(void *word, int operation, int value, void *timeout, void *second, unsigned third) {
    long result = syscall(SYS_futex, word, operation, value, timeout, second, third);
    return result < 0 ? -errno : result;
}

static _Atomic uint32_t first, second, waiting;
static _Atomic int woken;

struct order { void *word; int operation; unsigned third; long result; };

static void *wait_there(void *argument) {
    struct order *order = argument;
    waiting++;
    order->result = call(order->word, order->operation, 0, 0, 0, order->third);
    woken++;
    return 0;
}

static void begin(pthread_t *threads, struct order *orders, int count) {
    waiting = woken = 0;
    for (int i = 0; i < count; i++) pthread_create(&threads[i], 0, wait_there, &orders[i]);
    while (waiting < count) usleep(1000);
    usleep(50000);
}

static void waking(void) {
    pthread_t threads[3];
    struct order orders[3] = {{&first, FUTEX_WAIT_PRIVATE}, {&first, FUTEX_WAIT}, {&first, FUTEX_WAIT_PRIVATE}};
    begin(threads, orders, 3);
    printf("shared %ld, ", call(&first, FUTEX_WAKE, 1, 0, 0, 0));
    printf("private %ld, ", call(&first, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0));
    printf("more %ld\n", call(&first, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0));
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    printf("results %ld %ld %ld\n", orders[0].result, orders[1].result, orders[2].result);
}

static void bits(void) {
    pthread_t threads[2];
    struct order orders[2] = {{&first, FUTEX_WAIT_BITSET, 1}, {&first, FUTEX_WAIT_BITSET, 6}};
    begin(threads, orders, 2);
    printf("bits: none %ld, ", call(&first, FUTEX_WAKE_BITSET, INT_MAX, 0, 0, 8));
    printf("second %ld, ", call(&first, FUTEX_WAKE_BITSET, INT_MAX, 0, 0, 4));
    pthread_join(threads[1], 0);
    printf("woken %d, ", woken);
    printf("first %ld\n", call(&first, FUTEX_WAKE_BITSET, INT_MAX, 0, 0, 1));
    pthread_join(threads[0], 0);
    printf("no bits %ld\n", call(&first, FUTEX_WAIT_BITSET, 0, 0, 0, 0));
}

static void requeueing(void) {
    pthread_t threads[4];
    struct order orders[4] = {{&first, FUTEX_WAIT}, {&first, FUTEX_WAIT}, {&first, FUTEX_WAIT}, {&first, FUTEX_WAIT}};
    begin(threads, orders, 4);
    printf("requeued: differs %ld, ", call(&first, FUTEX_CMP_REQUEUE, 1, (void *)INT_MAX, &second, 7));
    printf("%ld, ", call(&first, FUTEX_CMP_REQUEUE, 1, (void *)2, &second, 0));
    printf("there %ld, ", call(&second, FUTEX_WAKE, INT_MAX, 0, 0, 0));
    printf("here %ld\n", call(&first, FUTEX_WAKE, INT_MAX, 0, 0, 0));
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    begin(threads, orders, 2);
    printf("moved %ld, ", call(&first, FUTEX_REQUEUE, 0, (void *)INT_MAX, &second, 0));
    printf("there %ld\n", call(&second, FUTEX_WAKE, INT_MAX, 0, 0, 0));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
}

static void operating(void) {
    pthread_t threads[2];
    struct order orders[2] = {{&first, FUTEX_WAIT}, {&second, FUTEX_WAIT}};
    begin(threads, orders, 2);
    int operation = FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0);
    printf("operated %ld, ", call(&first, FUTEX_WAKE_OP, 1, (void *)1, &second, operation));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
    printf("second %u\n", second);
    second = 0;
}

static void ending(void) {
    struct timespec short_time = {.tv_nsec = 20000000}, wrong = {.tv_nsec = -1};
    printf("value %ld, ", call(&first, FUTEX_WAIT, 1, 0, 0, 0));
    printf("late %ld, ", call(&first, FUTEX_WAIT, 0, &short_time, 0, 0));
    printf("wrong time %ld, ", call(&first, FUTEX_WAIT, 0, &wrong, 0, 0));
    printf("odd %ld, ", call((char *)&first + 1, FUTEX_WAKE, 1, 0, 0, 0));
    printf("nowhere %ld, ", call((void *)4096, FUTEX_WAIT, 0, 0, 0, 0));
    // Arguments that a command has not are whatever the registers hold.
    printf("rubbish %ld\n", call(&first, FUTEX_WAKE, 1, (void *)-1, (void *)-1, -1));
}

static pthread_mutex_t inheriting;
static long held;

static void *hold(void *argument) {
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&inheriting);
        held++;
        if (i % 50 == 0) usleep(500);
        pthread_mutex_unlock(&inheriting);
    }
    return 0;
}

static void inheritance(void) {
    pthread_mutexattr_t attributes;
    pthread_t threads[3];
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    printf("inheriting %s, ", strerror(pthread_mutex_init(&inheriting, &attributes)));
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, hold, 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    printf("held %ld\n", held);
}

static void processes(void) {
    _Atomic uint32_t *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status;
    pid_t child = fork();
    for (uint32_t turn = child ? 0 : 1; turn < 400; turn += 2) {
        for (uint32_t now; (now = *shared) != turn;) call((void *)shared, FUTEX_WAIT, now, 0, 0, 0);
        *shared = turn + 1;
        call((void *)shared, FUTEX_WAKE, 1, 0, 0, 0);
    }
    if (!child) _exit(3);
    waitpid(child, &status, 0);
    printf("processes: %u, %d\n", *shared, WEXITSTATUS(status));
}

int main(void) {
    waking();
    bits();
    requeueing();
    operating();
    ending();
    inheritance();
    fflush(stdout);
    processes();
    return 0;
}
