/* One system call many times over: `calls NAME COUNT` prints nanoseconds for each. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int zero, null;
static char byte;

static void get_pid(void) { syscall(SYS_getpid); }
static void read_one(void) { read(zero, &byte, 1); }
static void write_one(void) { write(null, &byte, 1); }
static void open_close(void) { close(open("/dev/null", O_RDONLY)); }
static void fork_wait(void) { if (fork() == 0) _exit(0); wait(NULL); }

static const struct { const char *name; void (*call)(void); } calls[] = {
    {"getpid", get_pid}, {"read", read_one}, {"write", write_one}, {"open+close", open_close}, {"fork+wait", fork_wait},
};

int main(int count, char **arguments)
{
    struct timespec start, end;
    long times = count > 2 ? atol(arguments[2]) : 0;
    zero = open("/dev/zero", O_RDONLY);
    null = open("/dev/null", O_WRONLY);
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (count < 2 || strcmp(calls[i].name, arguments[1])) continue;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (long n = 0; n < times; n++) calls[i].call();
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / times);
        return 0;
    }
    return 2;
}
