// Threads: what they share, what is their own, and how they wait for each other.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 6, ROUNDS = 2000 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_spinlock_t spin;
static pthread_barrier_t barrier;
static sem_t semaphore;
static long plain, spun;
static _Atomic long added, swapped;
static _Atomic unsigned char narrow;
static __thread long own = 40;
static int errors;

static void *count(void *argument) {
    own += (long)argument;
    errno = (int)(long)argument + 1;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&mutex);
        plain++;
        pthread_mutex_unlock(&mutex);
        pthread_spin_lock(&spin);
        spun++;
        pthread_spin_unlock(&spin);
        atomic_fetch_add(&added, 3);
        atomic_fetch_add(&narrow, 1);  // LR and SC
        long old = atomic_load(&swapped);
        while (!atomic_compare_exchange_weak(&swapped, &old, old + 1)) continue;
    }
    int serial = pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
    sem_post(&semaphore);
    if (errno != (int)(long)argument + 1) errors++;
    return (void *)(own * 2 + serial * 1000);
}

static void counting(void) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, 0, THREADS);
    pthread_spin_init(&spin, 0);
    sem_init(&semaphore, 0, 0);
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, count, (void *)i);
    for (int i = 0; i < THREADS; i++) sem_wait(&semaphore);
    long total = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        total += (long)result;
    }
    printf("counted %ld %ld %ld %ld %d, total %ld, own %ld, errors %d\n", plain, spun, (long)added, (long)swapped,
           (int)narrow, total, own, errors);
}

static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, drained = PTHREAD_COND_INITIALIZER;
static int queue[8], head, tail;

static void *produce(void *argument) {
    for (int i = 1; i <= 500; i++) {
        pthread_mutex_lock(&mutex);
        while (head - tail == 8) pthread_cond_wait(&drained, &mutex);
        queue[head++ % 8] = i;
        pthread_cond_signal(&filled);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

static void *consume(void *argument) {
    long sum = 0;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (head == tail) pthread_cond_wait(&filled, &mutex);
        int item = queue[tail++ % 8];
        pthread_cond_broadcast(&drained);
        pthread_mutex_unlock(&mutex);
        if (item < 0) return (void *)sum;
        sum += item;
    }
}

static void queueing(void) {
    pthread_t makers[3], takers[2];
    for (int i = 0; i < 2; i++) pthread_create(&takers[i], 0, consume, 0);
    for (int i = 0; i < 3; i++) pthread_create(&makers[i], 0, produce, 0);
    for (int i = 0; i < 3; i++) pthread_join(makers[i], 0);
    for (int i = 0; i < 2; i++) {
        pthread_mutex_lock(&mutex);
        while (head - tail == 8) pthread_cond_wait(&drained, &mutex);
        queue[head++ % 8] = -1;
        pthread_cond_signal(&filled);
        pthread_mutex_unlock(&mutex);
    }
    long sum = 0;
    for (int i = 0; i < 2; i++) {
        void *result;
        pthread_join(takers[i], &result);
        sum += (long)result;
    }
    printf("queued %ld\n", sum);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int initialized, destroyed;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static long guarded[2];
static _Atomic int torn;

static void initialize(void) { initialized++; }
static void destroy(void *value) { __atomic_fetch_add(&destroyed, *(int *)value, __ATOMIC_SEQ_CST); }

static void *read_and_write(void *argument) {
    static int one = 1;
    pthread_once(&once, initialize);
    pthread_setspecific(key, &one);
    for (int i = 0; i < 300; i++) {
        if (i % 10 == 0) {
            pthread_rwlock_wrlock(&lock);
            guarded[0]++;
            guarded[1]++;
            pthread_rwlock_unlock(&lock);
        } else {
            pthread_rwlock_rdlock(&lock);
            if (guarded[0] != guarded[1]) torn++;
            pthread_rwlock_unlock(&lock);
        }
    }
    pthread_exit(argument);
}

static void keeping(void) {
    pthread_t threads[4];
    pthread_key_create(&key, destroy);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], 0, read_and_write, 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    printf("once %d, destroyed %d, guarded %ld %ld, torn %d\n", initialized, destroyed, guarded[0], guarded[1], torn);
}

static _Atomic int detached_ended;
static void *detached(void *argument) {
    detached_ended++;
    return 0;
}

static void *names(void *argument) {
    char name[16];
    pthread_setname_np(pthread_self(), "worker");
    pthread_getname_np(pthread_self(), name, sizeof name);
    int number = syscall(SYS_gettid);
    printf("thread %s, others %d %d, killable %d\n", name, number != getpid(), getpid() == *(int *)argument,
           syscall(SYS_tgkill, getpid(), number, 0) == 0);
    return 0;
}

static void waiting(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    int pid = getpid();
    pthread_create(&thread, 0, names, &pid);
    pthread_join(thread, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (int i = 0; i < 20; i++) pthread_create(&thread, &attributes, detached, 0);
    while (detached_ended < 20) usleep(1000);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 20000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    pthread_mutex_lock(&mutex);
    int late = pthread_cond_timedwait(&filled, &mutex, &until);
    pthread_mutex_unlock(&mutex);
    printf("detached %d, late %d, %d\n", detached_ended, late == ETIMEDOUT, sem_trywait(&semaphore) == -1 && errno == EAGAIN);
}

static void *map_and_unmap(void *argument) {
    // Places that two threads are given must never be the same.
    for (int i = 0; i < 200; i++) {
        size_t size = 4096 * (1 + i % 5);
        char *place = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(place, (int)(long)argument, size);
        if (i % 3 == 0) place = mremap(place, size, 2 * size, MREMAP_MAYMOVE), size = 2 * size;
        char *more = malloc(3000 + i * 100);
        memset(more, (int)(long)argument, 3000 + i * 100);
        sched_yield();
        for (size_t at = 0; at < size / 2; at += 512)
            if (place[at] != (char)(long)argument) errors++;
        for (int at = 0; at < 3000; at++)
            if (more[at] != (char)(long)argument) errors++;
        mprotect(place, 4096, PROT_READ);
        munmap(place, size);
        free(more);
    }
    return 0;
}

static void mapping(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) pthread_create(&threads[i], 0, map_and_unmap, (void *)(i + 1));
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    printf("mapped, errors %d\n", errors);
}

static void *nothing(void *argument) { return argument; }

static void churning(void) {
    long sum = 0;
    for (long i = 0; i < 300; i++) {
        pthread_t thread;
        void *result;
        if (pthread_create(&thread, 0, nothing, (void *)i)) errors++;
        pthread_join(thread, &result);
        sum += (long)result;
    }
    printf("churned %ld, errors %d\n", sum, errors);
}

int main(void) {
    counting();
    queueing();
    keeping();
    waiting();
    mapping();
    churning();
    puts("all");
    fflush(stdout);
    puts("the");
    puts("end");
    return 3;
}
