/* Who and where a process is: names, ids, limits, resources. */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    struct utsname names;
    uname(&names);
    printf("%s %s %s\n", names.sysname, names.machine, names.nodename);
    uid_t r, e, s;
    getresuid(&r, &e, &s);
    printf("%d %d %d %d %d\n", r, e, s, getgid(), getegid());
    printf("groups %d\n", getgroups(0, NULL));
    printf("page %ld ticks %ld processors %d\n", sysconf(_SC_PAGESIZE), sysconf(_SC_CLK_TCK), sysconf(_SC_NPROCESSORS_ONLN) > 0);
    printf("auxv: page %lu entry %d secure %lu phnum %lu uid %lu clktck %lu random %d name %s\n", getauxval(AT_PAGESZ),
           getauxval(AT_ENTRY) != 0, getauxval(AT_SECURE), getauxval(AT_PHNUM), getauxval(AT_UID), getauxval(AT_CLKTCK),
           getauxval(AT_RANDOM) != 0, strrchr((char *)getauxval(AT_EXECFN), '/'));
    printf("arguments %d %s, aligned %d\n", count, arguments[1], (unsigned long)&arguments[-1] % 16 == 0);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 100;
    printf("set descriptors %d", setrlimit(RLIMIT_NOFILE, &limit));
    getrlimit(RLIMIT_NOFILE, &limit);
    printf(" %ld dup %d %s\n", (long)limit.rlim_cur, dup2(0, 100), strerror(errno));
    char name[17] = "";
    prctl(PR_SET_NAME, "a new name that is too long");
    prctl(PR_GET_NAME, name);
    printf("name %s\n", name);
    int parent = -1;
    printf("death signal %d", prctl(PR_SET_PDEATHSIG, 9));
    prctl(PR_GET_PDEATHSIG, &parent);
    printf(" %d\n", parent);
    printf("no new privileges %d %d\n", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("no such option %d %s\n", prctl(123456, 0, 0, 0, 0), strerror(errno));
    struct sysinfo system;
    printf("sysinfo %d memory %d unit %u\n", sysinfo(&system), system.totalram > 1000, system.mem_unit);
    cpu_set_t set;
    printf("affinity %d some %d\n", sched_getaffinity(0, sizeof set, &set), CPU_COUNT(&set) > 0);
    printf("policy %d priorities %d %d\n", sched_getscheduler(0), sched_get_priority_min(SCHED_FIFO), sched_get_priority_max(SCHED_FIFO));
    unsigned char random[16] = {0}, zero[16] = {0};
    printf("random %ld %d\n", (long)getrandom(random, 16, 0), memcmp(random, zero, 16) != 0);
    printf("nice %d %d\n", nice(3), getpriority(PRIO_PROCESS, 0));
    printf("pid %d %d\n", getpid() > 1, getppid() > 0);
    printf("environment %s\n", getenv("CHOSEN"));
    char line[200];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t size = fread(line, 1, sizeof line, file);
    printf("cmdline %d\n", size > 6 && !memcmp(line + size - 6, "\0word\0", 6));
    file = fopen("/proc/self/comm", "r");
    printf("comm %s", fgets(line, sizeof line, file));
    file = fopen("/proc/self/maps", "r");
    int stack = 0;
    while (fgets(line, sizeof line, file)) {
        unsigned long low, high;
        sscanf(line, "%lx-%lx", &low, &high);
        stack |= strstr(line, "[stack]") && low <= (unsigned long)&size && (unsigned long)&size < high;
    }
    printf("stack in maps %d\n", stack);
    return 0;
}
