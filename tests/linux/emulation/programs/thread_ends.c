// How threads and their process end, fork and execute; the first argument says which of it.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int begun;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char **words;

static void *spin(void *argument) {
    begun++;
    for (;;) continue;
}

static void *block(void *argument) {
    int pipes[2];
    char byte;
    pipe(pipes);
    begun++;
    read(pipes[0], &byte, 1);
    return 0;
}

static void *wait_long(void *argument) {
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    begun++;
    for (;;) pthread_cond_wait(&never, &mutex);
}

static void *call(void *argument) {
    begun++;
    for (;;) getppid();
}

static void *map(void *argument) {
    begun++;
    for (;;) {
        void *place = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(place, 8192);
    }
}

static void crowd(void) {
    void *(*functions[5])(void *) = {spin, block, wait_long, call, map};
    pthread_t thread;
    for (int i = 0; i < 5; i++) pthread_create(&thread, 0, functions[i], 0);
    while (begun < 5) usleep(1000);
}

static void *exit_all(void *argument) {
    puts("exits");
    exit(42);
}

static void *outlive(void *argument) {
    pthread_join(*(pthread_t *)argument, 0);
    printf("outlived %d\n", syscall(SYS_gettid) != getpid());
    fflush(stdout);
    return 0;
}

static void *raw_outlive(void *argument) {
    usleep(100000);
    printf("pid %d\n", getpid() == *(int *)argument);
    fflush(stdout);
    syscall(SYS_exit, 9);
    return 0;
}

static void *execute(void *argument) {
    printf("executes, first %d\n", syscall(SYS_gettid) == getpid());
    fflush(stdout);
    char pid[16];
    sprintf(pid, "%d", getpid());
    execl(words[0], words[0], "executed", pid, (char *)0);
    return 0;
}

static void *fork_and_wait(void *argument) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        printf("child: alone %d\n", syscall(SYS_gettid) == getpid());
        pthread_t thread;
        void *result = 0;
        int (*print)(const char *, ...) = printf;
        pthread_create(&thread, 0, (void *(*)(void *))getppid, 0);
        pthread_join(thread, &result);
        printf("child: its own thread %d\n", (int)(long)result == getppid());
        for (int i = 0; i < 20; i++) free(malloc(100000 * i));
        fflush(stdout);
        _exit(5);
    }
    waitpid(child, &status, 0);
    printf("parent: %d\n", WEXITSTATUS(status));
    return 0;
}

static void *fork_often(void *argument) {
    long good = 0;
    for (int i = 0; i < 15; i++) {
        int status;
        pid_t child = fork();
        if (!child) _exit(getpid() == syscall(SYS_gettid) ? i : 99);
        waitpid(child, &status, 0);
        good += WEXITSTATUS(status) == i;
    }
    return (void *)good;
}

static void *overflow(void *argument) {
    volatile char frame[1024];
    frame[0] = 1;
    return (char *)overflow((void *)frame) + frame[0];
}

static void *hold(void *argument) {
    pthread_mutex_lock(argument);
    return 0;
}

static void robust(int other_process) {
    pthread_mutex_t *shared =
        mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(shared, &attributes);
    if (other_process) {
        int status;
        pid_t child = fork();
        if (!child) {
            pthread_mutex_lock(shared);
            usleep(100000);
            _exit(0);
        }
        usleep(50000);
        int result = pthread_mutex_lock(shared);
        printf("process: %s\n", result == EOWNERDEAD ? "owner died" : strerror(result));
        waitpid(child, &status, 0);
    } else {
        pthread_t thread;
        pthread_create(&thread, 0, hold, shared);
        pthread_join(thread, 0);
        int result = pthread_mutex_lock(shared);
        printf("thread: %s\n", result == EOWNERDEAD ? "owner died" : strerror(result));
    }
    pthread_mutex_consistent(shared);
    pthread_mutex_unlock(shared);
    printf("again: %d\n", pthread_mutex_lock(shared));
}

static void *linger(void *argument) {
    for (;;) pause();
}

static void many(void) {
    // The guest's own error ends it, as many threads as there can be.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    int count = 0, error = 0;
    pthread_t thread;
    while (count < 10000 && !(error = pthread_create(&thread, &attributes, linger, 0))) count++;
    printf("many: %d, %s\n", count > 1000, error == EAGAIN ? "EAGAIN" : strerror(error));
    fflush(stdout);
    exit(0);
}

static void *die(void *argument) {
    raise((int)(long)argument);
    return 0;
}

int main(int count, char **arguments) {
    pthread_t thread, self = pthread_self();
    void *result;
    int pid = getpid();
    const char *what = arguments[1];
    words = arguments;
    if (!strcmp(what, "executed")) {
        printf("executed %d, threads before %d\n", atoi(arguments[2]) == getpid(), begun);
        pthread_create(&thread, 0, (void *(*)(void *))getpid, 0);
        pthread_join(thread, &result);
        printf("new thread %d\n", (int)(long)result == getpid());
        return 6;
    }
    if (!strcmp(what, "exit")) {
        crowd();
        pthread_create(&thread, 0, exit_all, 0);
        pthread_join(thread, 0);
    } else if (!strcmp(what, "return")) {
        crowd();
        return 17;
    } else if (!strcmp(what, "outlive")) {
        pthread_create(&thread, 0, outlive, &self);
        pthread_exit(0);
    } else if (!strcmp(what, "status")) {
        pthread_create(&thread, 0, raw_outlive, &pid);
        syscall(SYS_exit, 8);
    } else if (!strcmp(what, "execute")) {
        crowd();
        pthread_create(&thread, 0, execute, 0);
        for (;;) continue;
    } else if (!strcmp(what, "execute-late")) {
        crowd();
        pthread_create(&thread, 0, execute, 0);
        pthread_exit(0);
    } else if (!strcmp(what, "execute-first")) {
        crowd();
        execute(0);
    } else if (!strcmp(what, "fork")) {
        crowd();
        pthread_create(&thread, 0, fork_and_wait, 0);
        pthread_join(thread, 0);
        return 0;
    } else if (!strcmp(what, "forks")) {
        pthread_t threads[3];
        long good = 0;
        crowd();
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, fork_often, 0);
        for (int i = 0; i < 3; i++) {
            pthread_join(threads[i], &result);
            good += (long)result;
        }
        printf("forks: %ld\n", good);
    } else if (!strcmp(what, "overflow")) {
        crowd();
        pthread_create(&thread, 0, overflow, 0);
        pthread_join(thread, 0);
    } else if (!strcmp(what, "abort")) {
        crowd();
        pthread_create(&thread, 0, die, (void *)SIGABRT);
        pthread_join(thread, 0);
    } else if (!strcmp(what, "terminate")) {
        crowd();
        pthread_create(&thread, 0, die, (void *)SIGTERM);
        pthread_join(thread, 0);
    } else if (!strcmp(what, "robust")) {
        robust(0);
        robust(1);
    } else if (!strcmp(what, "many")) {
        many();
    }
    return 0;
}
