/* Waiting for events: poll, select, epoll, eventfd, signalfd, inotify, with signal masks and timeouts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int hits, hits_inside = -1;
static void count(int number) { hits++; }
static void look(int number) { hits_inside = hits; }

static void later(int number)
{
    pid_t parent = getpid();
    if (fork() == 0) { usleep(60000); kill(parent, number); _exit(0); }
}

int main(void)
{
    int ends[2];
    pipe(ends);
    struct pollfd polls[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {77, POLLIN, 0}};
    printf("poll %d: %x %x %x\n", poll(polls, 3, 0), polls[0].revents, polls[1].revents, polls[2].revents);
    struct timespec soon = {0, 10000000};
    printf("ppoll %d\n", ppoll(polls, 1, &soon, NULL));
    write(ends[1], "abc", 3);
    printf("ppoll %d %x\n", ppoll(polls, 1, NULL, NULL), polls[0].revents);
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(ends[0], &readable);
    printf("select %d %d\n", select(ends[1] + 1, &readable, NULL, NULL, NULL), FD_ISSET(ends[0], &readable) != 0);
    char buffer[64];
    read(ends[0], buffer, 3);
    struct timeval brief = {0, 10000};
    printf("select %d %d\n", select(ends[1] + 1, &readable, NULL, NULL, &brief), FD_ISSET(ends[0], &readable) != 0);

    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t block, empty, now;
    sigemptyset(&empty);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    sigprocmask(SIG_BLOCK, &block, NULL);
    kill(getpid(), SIGUSR1);
    printf("before %d\n", hits);
    int result = ppoll(polls, 1, NULL, &empty);
    printf("ppoll with a mask %d %s hits %d\n", result, strerror(errno), hits);
    later(SIGUSR1);
    result = pselect(0, NULL, NULL, NULL, NULL, &empty);
    printf("pselect with a mask %d %s hits %d\n", result, strerror(errno), hits);
    sigprocmask(SIG_BLOCK, NULL, &now);
    printf("blocked again %d\n", sigismember(&now, SIGUSR1));

    hits = 0;
    action.sa_handler = look;
    sigaction(SIGUSR2, &action, NULL);
    struct pollfd writable = {ends[1], POLLOUT, 0};
    printf("ready with a mask %d", ppoll(&writable, 1, NULL, &empty));
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGUSR2);
    printf(" blocked in a later handler %d\n", hits_inside == 0);
    ppoll(&writable, 0, &soon, &empty);
    printf("let in %d\n", hits);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 0x1122334455667788}}, events[8];
    printf("add %d", epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    printf(" twice %d %s\n", epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event), strerror(errno));
    printf("none %d\n", epoll_wait(epoll, events, 8, 0));
    int counter = eventfd(3, EFD_NONBLOCK);
    event = (struct epoll_event){EPOLLIN | EPOLLOUT, {.fd = counter}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event);
    write(ends[1], "z", 1);
    int ready = epoll_wait(epoll, events, 8, 1000);
    printf("ready %d\n", ready);
    for (int i = 0; i < ready; i++) printf("%x %llx\n", events[i].events, (unsigned long long)events[i].data.u64);
    printf("edge: %d\n", epoll_wait(epoll, events, 8, 0));
    printf("delete %d %d\n", epoll_ctl(epoll, EPOLL_CTL_DEL, counter, NULL), epoll_wait(epoll, events, 8, 0));
    later(SIGUSR1);
    result = epoll_pwait(epoll, events, 8, 3000, &empty);
    printf("epoll_pwait %d %s hits %d\n", result, strerror(errno), hits);
    printf("epoll no events %d %s\n", epoll_wait(epoll, events, 0, 0), strerror(errno));
    printf("epoll bad pointer %d %s\n", epoll_ctl(epoll, EPOLL_CTL_ADD, counter, (void *)8), strerror(errno));
    while (wait(NULL) > 0);

    uint64_t value = 0;
    read(counter, &value, 8);
    printf("eventfd %lu", (unsigned long)value);
    printf(" then %ld %s\n", (long)read(counter, &value, 8), strerror(errno));
    int signals = signalfd(-1, &block, 0);
    struct signalfd_siginfo info;
    kill(getpid(), SIGUSR1);
    printf("signalfd %ld", (long)read(signals, &info, sizeof info));
    printf(" %u %d\n", info.ssi_signo, info.ssi_pid == (unsigned)getpid());
    int watch = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(watch, ".", IN_CREATE | IN_DELETE);
    close(open("watched", O_CREAT | O_WRONLY, 0600));
    unlink("watched");
    struct inotify_event *first = (void *)buffer;
    read(watch, buffer, sizeof buffer);
    printf("inotify %x %s\n", first->mask, first->name);
    return 0;
}
