/* recorded HOW [PROGRAM]: ends in one of several ways, having called `called` and never `not_called`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noipa)) int called(int number) { return number * 3; }
__attribute__((noipa)) int not_called(int number) { return number * 5; }
__attribute__((noipa)) int called_by_child(int number) { return number * 7; }

int main(int count, char **words) {
    const char *how = words[1];
    int result = count > 9 ? not_called(count) : called(count);
    if (!strcmp(how, "terminated")) raise(SIGTERM);
    if (!strcmp(how, "faulting")) *(volatile int *)8 = 1;
    if (!strcmp(how, "forking")) {
        pid_t child = fork();
        if (child == 0) _exit(called_by_child(1));
        waitpid(child, NULL, 0);
    }
    if (!strcmp(how, "closing")) {
        /* The emulator's files are gone; one of ours gets the number of each that was open. */
        syscall(SYS_close_range, 3, ~0U, 0);
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        int own = open("own", O_WRONLY | O_CREAT, 0600);
        for (int below = 1; below <= 40; below++) dup2(own, (int)limit.rlim_cur - below);
    }
    if (!strcmp(how, "executing")) execl(words[2], words[2], "returning", (char *)NULL);
    return result;
}
