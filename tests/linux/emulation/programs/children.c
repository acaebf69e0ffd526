/* Children and their signals: SA_NOCLDSTOP, SA_NOCLDWAIT, an ignored SIGCHLD, orphans, limits that pass on. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int hits;
static void count(int number) { hits++; }

static void set(int flags)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    sigaction(SIGCHLD, &action, NULL);
    hits = 0;
}

static void show(const char *what, long result)
{
    printf("%s: %ld %s, hits %d\n", what, result, result < 0 ? strerror(errno) : "", hits);
    fflush(stdout);
}

static void stop_and_go(void)
{
    pid_t child = fork();
    int status;
    if (child == 0) { raise(SIGSTOP); _exit(0); }
    while (waitpid(child, &status, WUNTRACED) != child);
    kill(child, SIGCONT);
    while (waitpid(child, &status, 0) != child);
}

static long wait_for_any(void)
{
    long result;
    while ((result = wait(NULL)) < 0 && errno == EINTR);
    return result;
}

int main(void)
{
    set(0);
    stop_and_go();
    printf("stop, continue, end: at least two %d\n", hits >= 2);
    set(SA_NOCLDSTOP);
    stop_and_go();
    show("end alone", 0);
    set(SA_NOCLDWAIT);
    if (fork() == 0) _exit(1);
    show("no zombie", wait_for_any());
    signal(SIGCHLD, SIG_IGN);
    hits = 0;
    if (fork() == 0) _exit(1);
    show("ignored", wait_for_any());
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) { usleep(50000); _exit(getppid() == 1 ? 1 : 6); }
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    wait(&status);
    show("orphan adopted", WEXITSTATUS(status));
    struct rlimit limit = {50, 50};
    setrlimit(RLIMIT_NOFILE, &limit);
    child = fork();
    if (child == 0) _exit(dup2(0, 50) < 0 && errno == EBADF ? 7 : 8);
    waitpid(child, &status, 0);
    show("limit inherited", WEXITSTATUS(status));
    child = vfork();
    if (child == 0) _exit(9);
    waitpid(child, &status, 0);
    show("vfork within a low limit", WEXITSTATUS(status));
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    child = vfork();
    if (child == 0) { usleep(100000); _exit(0); }
    clock_gettime(CLOCK_MONOTONIC, &after);
    double waited = after.tv_sec - before.tv_sec + (after.tv_nsec - before.tv_nsec) / 1e9;
    show("vfork waits", waited > 0.09);
    waitpid(child, &status, 0);
    child = vfork();
    if (child == 0) raise(SIGKILL);
    waitpid(child, &status, 0);
    show("a killed child lets its parent go", WTERMSIG(status));
    char *words[] = {"x", NULL};
    show("spawn of nothing", posix_spawn(&child, "/no/such/program", NULL, NULL, words, words));
    show("spawn of a directory", posix_spawn(&child, "/etc", NULL, NULL, words, words));
    show("spawn through PATH", posix_spawnp(&child, "no-such-program", NULL, NULL, words, words));
    show("nothing is left", wait_for_any());
    show("spawn", posix_spawnp(&child, "true", NULL, NULL, words, words));
    waitpid(child, &status, 0);
    show("spawned", WEXITSTATUS(status));
    limit = (struct rlimit){1, 1};
    child = fork();
    if (child == 0) { setrlimit(RLIMIT_CPU, &limit); for (;;); }
    waitpid(child, &status, 0);
    show("processor time used up", WIFSIGNALED(status));
    return 0;
}
