/* Runs or sleeps forever, crashes, forks or executes itself anew, as its argument says. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile unsigned long turns;
int *nowhere = (int *)8;

void spin(void)
{
    for (;;)
        turns++;
}

void again(void)
{
    printf("became anew\n");
}

void child_only(void)
{
    turns = 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    sigset_t all;
    sigfillset(&all);
    if (!strcmp(what, "spin"))
        spin();
    if (!strcmp(what, "block")) {
        sigprocmask(SIG_SETMASK, &all, NULL);
        spin();
    }
    if (!strcmp(what, "sleep"))
        printf("slept %d\n", sleep(3));
    if (!strcmp(what, "crash"))
        *nowhere = 1;
    if (!strcmp(what, "abort"))
        abort();
    if (!strcmp(what, "exec"))
        execl("/proc/self/exe", argv[0], "anew", NULL);
    if (!strcmp(what, "anew"))
        again();
    if (!strcmp(what, "fork")) {
        int status;
        if (fork() == 0) {
            child_only();
            _exit(3);
        }
        wait(&status);
        printf("child %d\n", WEXITSTATUS(status));
    }
    return 0;
}
