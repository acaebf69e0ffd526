/* What a hostile or broken program tries: every answer must be its own error, never the emulator's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void is(const char *what, int good)
{
    if (!good) printf("WRONG: %s (%s)\n", what, strerror(errno));
}

static int fails(long result, int error) { return result == -1 && errno == error; }

/* Each call with each of its arguments in turn a wild pointer; all others are valid addresses or small. */
static void wild_pointers(void)
{
    static const unsigned long wild[] = {
        1, 4095, 0x10000000, 0x3fffffffff, 0x4000000000, 0x7fffffffffff, 0x7ffff0000000, 0x8000000000000000, -1ul, -4096ul,
    };
    static const int skipped[] = {
        SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_clone, SYS_clone3, SYS_kill, SYS_tkill, SYS_tgkill, SYS_reboot,
        SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_ppoll, SYS_pselect6, SYS_nanosleep, SYS_clock_nanosleep,
        SYS_munmap, SYS_mprotect, SYS_mmap, SYS_mremap, SYS_brk, SYS_madvise, SYS_close, SYS_close_range, SYS_dup3,
        SYS_setpriority, SYS_sched_setscheduler, SYS_sched_setparam, SYS_sched_setattr, SYS_setrlimit, SYS_prlimit64,
        SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal, SYS_setitimer, SYS_timer_create, SYS_futex,
        SYS_unshare, SYS_setns, SYS_chroot, SYS_sync, SYS_syncfs, SYS_vhangup, SYS_acct, SYS_setuid, SYS_setgid,
        SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid, SYS_setgroups, SYS_capset,
        SYS_setsid, SYS_setpgid, SYS_umask, SYS_fcntl, SYS_read, SYS_pread64, SYS_wait4, SYS_waitid, SYS_personality,
        SYS_sethostname, SYS_setdomainname, SYS_syslog, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_sigaltstack, SYS_swapoff,
        SYS_landlock_restrict_self, SYS_membarrier, SYS_mlockall, SYS_ioprio_set, SYS_epoll_pwait, SYS_chdir, SYS_fchdir,
        SYS_fchmod, SYS_fchown, SYS_ftruncate, SYS_fallocate, SYS_riscv_flush_icache, SYS_clock_settime, SYS_settimeofday,
        SYS_adjtimex, SYS_clock_adjtime, SYS_sched_setaffinity, SYS_write, SYS_pwrite64, SYS_timer_delete, SYS_mount,
        SYS_umount2, SYS_pivot_root, SYS_prctl, SYS_sched_yield, SYS_epoll_pwait2,
    };
    static char area[1 << 16];
    int sink = open("/dev/null", O_RDWR);
    for (int number = 0; number < 460; number++) {
        int skip = 0;
        for (unsigned i = 0; i < sizeof skipped / sizeof *skipped; i++) skip |= skipped[i] == number;
        if (skip) continue;
        for (unsigned w = 0; w < sizeof wild / sizeof *wild; w++)
            for (int place = 0; place < 5; place++) {
                unsigned long a[6] = {sink, (unsigned long)area, (unsigned long)area, (unsigned long)area, (unsigned long)area, 0};
                a[place] = wild[w];
                memset(area, 0, 256);
                syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
            }
    }
    for (int fd = 3; fd < 200; fd++) close(fd);
}

int main(void)
{
    char buffer[100];
    is("no such call", fails(syscall(9999), ENOSYS));
    is("a negative call", fails(syscall(-1), ENOSYS));
    is("a huge call", fails(syscall(0x100000000), ENOSYS));
    is("seccomp", fails(syscall(SYS_seccomp, 1, 0, 0), ENOSYS));
    is("ptrace", fails(syscall(SYS_ptrace, 0, 0, 0, 0), ENOSYS));
    is("process_vm_writev", fails(syscall(SYS_process_vm_writev, getpid(), 0, 0, 0, 0, 0), ENOSYS));
    is("userfaultfd", fails(syscall(SYS_userfaultfd, 0), ENOSYS));
    is("io_uring", fails(syscall(425, 1, 0), ENOSYS));
    is("threads with files of their own", fails(syscall(SYS_clone, 0x10000 | 0x800 | 0x100, buffer, 0, 0, 0), EINVAL));
    is("memory of itself", fails(open("/proc/self/mem", O_RDWR), EACCES));
    symlink("/proc/self", "here");
    is("memory by a link", fails(open("here/mem", O_RDWR), EACCES));
    int self = open("/proc/self", O_DIRECTORY);
    is("memory by a directory", fails(openat(self, "task/../mem", O_RDONLY), EACCES));
    is("memory by the pid", (snprintf(buffer, 100, "/proc/%d/mem", getpid()), fails(open(buffer, O_RDONLY), EACCES)));
    is("buffer beyond the end", fails(read(0, (void *)0x3ffffffff0, 1ul << 40), EFAULT));
    is("length wraps", fails(syscall(SYS_write, 1, buffer, -1ul), EFAULT));
    is("read into nothing", fails(getcwd((void *)0x3ffffff000 - 0x2000000000, 4096) ? 0 : -1, EFAULT));
    is("fixed low", fails((long)mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM));
    is("fixed beyond", fails((long)mmap((void *)0x4000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM));
    is("fixed far beyond", fails((long)mmap((void *)0x7fff00000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM));
    is("fixed wraps", fails((long)mmap((void *)-4096, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM));
    is("huge", fails((long)mmap(0, -4096ul, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM));
    is("unmap beyond", fails(munmap((void *)0x3ffffff000, 1ul << 40), EINVAL));
    is("unmap wraps", fails(munmap((void *)0x1000, -4096ul), EINVAL));
    is("protect beyond", fails(mprotect((void *)0x3ffffff000, 1ul << 40, PROT_READ), ENOMEM));
    is("advise beyond", fails(madvise((void *)0x3ffffff000, 1ul << 40, MADV_DONTNEED), ENOMEM));
    is("brk beyond", syscall(SYS_brk, -1ul) == syscall(SYS_brk, 0) && syscall(SYS_brk, 1ul << 45) == syscall(SYS_brk, 0));
    is("remap far", fails((long)mremap(buffer - (unsigned long)buffer % 4096, 4096, 1ul << 45, MREMAP_MAYMOVE), EINVAL));
    struct rlimit limit = {1 << 30, RLIM_INFINITY};
    is("limit of memory", setrlimit(RLIMIT_AS, &limit) == 0);
    is("holds", fails((long)mmap(0, 2ul << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM));
    is("and leaves room", mmap(0, 1 << 24, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    is("size of a signal set", fails(syscall(SYS_rt_sigprocmask, 0, 0, buffer, 16), EINVAL));
    is("stack in nowhere", (syscall(SYS_sigaltstack, &(stack_t){.ss_sp = (void *)-4096, .ss_size = 1 << 20}, 0) == 0));
    is("all descriptors but three", fails(dup2(0, 1 << 30), EBADF));
    for (int fd = 3; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && fd != self) printf("WRONG: descriptor %d is not the program's\n", fd);
    close_range(3, ~0u, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) { wild_pointers(); _exit(42); }
    int status;
    waitpid(child, &status, 0);
    is("wild pointers survived", WIFEXITED(status) && WEXITSTATUS(status) == 42);
    if (WIFSIGNALED(status)) printf("signal %d\n", WTERMSIG(status));
    puts("done");
    return 0;
}
