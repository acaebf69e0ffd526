/* Executes each of the files that it is given, and says what came of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        int status;
        fflush(stdout);
        if (fork() == 0) {
            char *words[] = {names[i], 0};
            execve(names[i], words, environ);
            printf("%s: %s\n", names[i], strerrorname_np(errno));
            fflush(stdout);
            _exit(0);
        }
        wait(&status);
        if (WIFSIGNALED(status))
            printf("%s: signal %d\n", names[i], WTERMSIG(status));
    }
}
