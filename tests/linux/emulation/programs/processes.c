/* Processes: fork, vfork, execve of programs and scripts, waiting, pipes, groups and sessions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void show_status(const char *what, int status)
{
    if (WIFEXITED(status)) printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status)) printf("%s: signal %d\n", what, WTERMSIG(status));
    else if (WIFSTOPPED(status)) printf("%s: stopped %d\n", what, WSTOPSIG(status));
    else if (WIFCONTINUED(status)) printf("%s: continued\n", what);
    fflush(stdout);
}

static int finish(pid_t pid) { int status = -1; waitpid(pid, &status, 0); return status; }

static int try_exec(const char *path, char *const arguments[])
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        execve(path, arguments, (char *[]){"ONLY=this", NULL});
        printf("execve %s: %s\n", path, strerror(errno));
        fflush(stdout);
        _exit(99);
    }
    return finish(pid);
}

static void write_file(const char *name, const char *content, mode_t mode)
{
    int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0700);
    write(fd, content, strlen(content));
    fchmod(fd, mode);
    close(fd);
}

int main(int count, char **arguments)
{
    if (count > 1) {
        printf("executed with %d:", count);
        for (int i = 1; i < count; i++) printf(" [%s]", arguments[i]);
        printf(" ONLY=%s open20=%d", getenv("ONLY"), fcntl(20, F_GETFD));
        struct sigaction action;
        sigset_t mask;
        sigaction(SIGUSR1, NULL, &action);
        printf(" usr1=%d", action.sa_handler == SIG_DFL ? 0 : action.sa_handler == SIG_IGN ? 1 : 2);
        sigaction(SIGUSR2, NULL, &action);
        sigprocmask(SIG_BLOCK, NULL, &mask);
        printf(" usr2=%d blocked=%d\n", action.sa_handler == SIG_DFL ? 0 : 1, sigismember(&mask, SIGQUIT));
        return 17;
    }
    char *self = realpath("/proc/self/exe", NULL);
    show_status("exit code", finish(fork() ?: (_exit(300), 0)));
    pid_t child = fork();
    if (child == 0) { kill(getpid(), SIGTERM); pause(); }
    show_status("killed", finish(child));
    int seen[2], status;
    if (pipe(seen)) return 1;
    child = fork();
    /* A child that has ended is not known to have been continued any more. */
    if (child == 0) { char byte; raise(SIGSTOP); _exit(read(seen[0], &byte, 1) == 1 ? 4 : 5); }
    waitpid(child, &status, WUNTRACED);
    show_status("child", status);
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    show_status("child", status);
    if (write(seen[1], "", 1) != 1) return 1;
    close(seen[0]);
    close(seen[1]);
    siginfo_t info;
    printf("waitid %d", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    printf(" code %d status %d\n", info.si_code == CLD_EXITED, info.si_status);
    show_status("child", finish(child));
    status = wait(NULL);
    printf("nothing left: %d %s\n", status, strerror(errno));
    printf("parent known: %d\n", fork() ? (wait(&status), WEXITSTATUS(status)) : (_exit(getppid() > 1), 0));

    signal(SIGUSR1, show_status == NULL ? SIG_DFL : (void (*)(int))show_status);
    signal(SIGUSR2, SIG_IGN);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGQUIT);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    dup2(1, 20);
    show_status("self", try_exec(self, (char *[]){"zero", "a b", "", "c", NULL}));
    fcntl(20, F_SETFD, FD_CLOEXEC);
    show_status("self", try_exec("/proc/self/exe", (char *[]){"zero", "x", NULL}));
    char line[5000];
    snprintf(line, sizeof line, "#!%s  -option with blanks \nrest\n", self);
    write_file("script", line, 0700);
    show_status("script", try_exec("./script", (char *[]){"ignored", "argument", NULL}));
    write_file("nested", "#!./script\n", 0700);
    show_status("nested script", try_exec("./nested", (char *[]){"ignored", "deep", NULL}));
    write_file("endless", "#!./endless\n", 0700);
    show_status("endless script", try_exec("./endless", (char *[]){"x", NULL}));
    write_file("text", "just text\n", 0700);
    show_status("text", try_exec("./text", (char *[]){"x", NULL}));
    write_file("secret", "#!/bin/sh\n", 0600);
    mkdir("directory", 0700);
    show_status("directory", try_exec("./directory", (char *[]){"x", NULL}));
    show_status("missing", try_exec("./missing", (char *[]){"x", NULL}));
    show_status("lost interpreter", (write_file("lost", "#!/no/such\n", 0700), try_exec("./lost", (char *[]){"x", NULL})));
    show_status("host program", try_exec("/bin/echo", (char *[]){"echo", "from", "the host", NULL}));
    char *many[2] = {memset(malloc(200001), 'a', 200000), NULL};
    many[0][200000] = 0;
    show_status("too long", try_exec(self, many));

    child = vfork();
    if (child == 0) { execl(self, "zero", "vforked", NULL); _exit(1); }
    show_status("vfork", finish(child));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, 1, 20);
    printf("spawn %d\n", posix_spawn(&child, self, &actions, NULL, (char *[]){"zero", "spawned", NULL}, environ));
    show_status("spawn", finish(child));
    fflush(stdout);
    printf("system %d\n", WEXITSTATUS(system("exit 5")));
    FILE *pipe_ = popen("echo through a pipe; exit 3", "r");
    printf("popen %s", fgets(line, sizeof line, pipe_));
    printf("pclose %d\n", WEXITSTATUS(pclose(pipe_)));

    int ends[2];
    pipe(ends);
    if (fork() == 0) {
        close(ends[0]);
        for (int i = 0; i < 1000; i++) write(ends[1], line, 1000);
        _exit(0);
    }
    close(ends[1]);
    long total = 0, got;
    while ((got = read(ends[0], line, sizeof line)) > 0) total += got;
    wait(NULL);
    printf("piped %ld\n", total);
    child = fork();
    if (child == 0) _exit((setsid() == getpid()) + 2 * (getpgrp() == getpid()) + 4 * (getsid(0) == getpid()));
    show_status("session", finish(child));
    child = fork();
    if (child == 0) { setpgid(0, 0); _exit(getpgid(0) == getpid()); }
    show_status("group", finish(child));
    struct rusage usage;
    child = fork();
    if (child == 0) { for (volatile long i = 0; i < 3000000; i++); _exit(0); }
    printf("wait4 %d", wait4(child, &status, 0, &usage) == child);
    printf(" used %d\n", usage.ru_utime.tv_sec + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec > 0);
    for (int i = 0; i < 20; i++)
        if (fork() == 0) { if (fork() == 0) _exit(1); wait(&status); _exit(WEXITSTATUS(status) + i); }
    int sum = 0;
    while (wait(&status) > 0) sum += WEXITSTATUS(status);
    printf("sum %d\n", sum);
    return 0;
}
