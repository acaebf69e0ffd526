/* Children that close, and reuse, all descriptors that they did not open, as subprocess in Python makes them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *words[] = {"closing", "child", 0};

static void report(const char *how, int pid) {
    int status;
    printf("%s: %d", how, waitpid(pid, &status, 0) == pid);
    printf(" %d %d\n", WIFEXITED(status), WEXITSTATUS(status));
    fflush(stdout);
}

/* How many threads the process has, as the kernel tells. */
static long threads(void) {
    static char text[4096];
    int fd = open("/proc/self/stat", O_RDONLY);
    long n = read(fd, text, sizeof text - 1);
    close(fd);
    char *field = n > 0 ? strrchr(text, ')') : 0;
    for (int i = 0; field && i < 18; i++)
        field = strchr(field + 1, ' ');
    return field ? atol(field) : -1;
}

static long status_threads(void) {
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    long n = read(fd, text, sizeof text - 1);
    close(fd);
    char *line = n > 0 ? strstr(text, "\nThreads:") : 0;
    return line ? atol(line + 9) : -1;
}

int main(int count, char **names) {
    struct rlimit limit;
    if (count > 1) {
        printf("executed %d %d\n", fcntl(3, F_GETFD), fcntl(900, F_GETFD));
        return 5;
    }
    printf("threads %ld %ld\n", threads(), status_threads());
    clock_t end = clock() + CLOCKS_PER_SEC / 5;
    while (clock() < end)
        ;
    printf("threads %ld %ld\n", threads(), status_threads());
    fflush(stdout);
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur > 2000)
        limit.rlim_cur = 2000;
    setrlimit(RLIMIT_NOFILE, &limit);

    int pid = vfork();
    if (pid == 0) {
        syscall(SYS_close_range, 3, ~0u, 0);
        execv(names[0], words);
        _exit(1);
    }
    report("close_range and execve", pid);

    pid = vfork();
    if (pid == 0) {
        syscall(SYS_close_range, 3, ~0u, 0);
        _exit(6);
    }
    report("close_range and exit", pid);

    pid = vfork();
    if (pid == 0) {
        for (int fd = 3; fd < (int)limit.rlim_cur; fd++)
            close(fd);
        execv(names[0], words);
        _exit(1);
    }
    report("close and execve", pid);

    pid = vfork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        for (int fd = (int)limit.rlim_cur - 20; fd < (int)limit.rlim_cur; fd++)
            dup2(null, fd);
        int kept = 0;
        for (int fd = (int)limit.rlim_cur - 20; fd < (int)limit.rlim_cur; fd++)
            kept += fcntl(fd, F_GETFD) == 0;
        printf("kept %d\n", kept);
        fflush(stdout);
        execv("/no/such/program", words);
        _exit(7);
    }
    report("dup2 over all and exit", pid);

    volatile int error = 0;
    pid = vfork();
    if (pid == 0) {
        syscall(SYS_close_range, 3, ~0u, 0);
        execv("/no/such/program", words);
        error = errno;
        _exit(8);
    }
    printf("the child's error: %d\n", error);
    report("close_range and failure", pid);

    /* A program of the host's ISA, which has to be let go, too. */
    for (int closes = 0; closes < 2; closes++) {
        pid = vfork();
        if (pid == 0) {
            if (closes)
                syscall(SYS_close_range, 3, ~0u, 0);
            execl("/bin/sleep", "sleep", "0.5", (char *)0);
            _exit(1);
        }
        printf("goes on: %d\n", waitpid(pid, 0, WNOHANG) == 0);
        report("sleep", pid);
    }

    FILE *pipe = popen("echo from a pipe", "r");
    char line[99];
    printf("%s", fgets(line, sizeof line, pipe) ? line : "nothing\n");
    printf("%d\n", pclose(pipe));
}
