/* Ends by signals, as the parent sees them. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int overflow(int depth) { volatile char room[10000]; room[0] = depth; return overflow(depth + 1) + room[0]; }
static void null_write(void) { *(volatile int *)0 = 1; }
static void wild_read(void) { (void)*(volatile long *)0x123456789abcdef0; }
static void wild_jump(void) { ((void (*)(void))0x1000)(); }
static void high_jump(void) { ((void (*)(void))0xfffffffffffff000)(); }
static void deep(void) { overflow(0); }
static void illegal(void) { __asm__ volatile(".word 0"); }
static void trap(void) { __asm__ volatile("ebreak"); }
static void aborted(void) { abort(); }
static void terminated(void) { raise(SIGTERM); }
static void killed(void) { raise(SIGKILL); }
static void real_time(void) { raise(SIGRTMIN + 5); }
static void broken_pipe(void) { int ends[2]; pipe(ends); close(ends[0]); write(ends[1], "x", 1); }
static void alarmed(void) { alarm(1); pause(); }
static void blocked_fault(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGSEGV, SIG_IGN);
    null_write();
}
static void handler(int number) { null_write(); }
static void fault_in_handler(void) { signal(SIGSEGV, handler); null_write(); }
static void no_stack_for_handler(void)
{
    signal(SIGUSR1, handler);
    __asm__ volatile("li a7, 172; ecall; li a7, 129; li a1, 10; li sp, 64; ecall" ::: "a0", "a1", "a7");
}
static void bad_return(void) { __asm__ volatile("li sp, 4096; li a7, 139; ecall"); }
static void stopped_and_killed(void) { if (fork()) pause(); kill(getppid(), SIGSTOP); kill(getppid(), SIGKILL); _exit(0); }

#define CASE(name) {#name, name}
static const struct { const char *name; void (*act)(void); } cases[] = {
    CASE(null_write), CASE(wild_read), CASE(wild_jump), CASE(high_jump), CASE(deep), CASE(illegal), CASE(trap),
    CASE(aborted), CASE(terminated), CASE(killed), CASE(real_time), CASE(broken_pipe), CASE(alarmed),
    CASE(blocked_fault), CASE(fault_in_handler), CASE(no_stack_for_handler), CASE(bad_return), CASE(stopped_and_killed),
};

int main(void)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) { cases[i].act(); _exit(0); }
        int status;
        waitpid(child, &status, 0);
        printf("%s: %s %d\n", cases[i].name, WIFSIGNALED(status) ? "signal" : "exit",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    fflush(stdout);
    null_write();
}
