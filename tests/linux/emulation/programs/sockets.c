/* Sockets: pairs, streams and datagrams of the UNIX and INET families, messages with descriptors, options. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void passing(void)
{
    int pair[2], pipes[2], got = -1;
    printf("pair %d\n", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    pipe(pipes);
    char data[] = "with a descriptor", control[CMSG_SPACE(sizeof(int))] = "";
    struct iovec parts[2] = {{data, 5}, {data + 5, sizeof data - 5}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &pipes[1], sizeof(int));
    printf("sendmsg %ld\n", (long)sendmsg(pair[0], &message, 0));
    char received[64] = "";
    struct iovec whole = {received, sizeof received};
    message = (struct msghdr){.msg_iov = &whole, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    printf("recvmsg %ld flags %d control %ld\n", (long)recvmsg(pair[1], &message, 0), message.msg_flags, (long)message.msg_controllen);
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    write(got, "via", 3);
    read(pipes[0], received + 30, 3);
    printf("%s %s different %d\n", received, received + 30, got != pipes[1]);
    message.msg_iov = (void *)8;
    printf("bad vector %ld %s\n", (long)sendmsg(pair[0], &message, 0), strerror(errno));
    printf("bad message %ld %s\n", (long)sendmsg(pair[0], (void *)8, 0), strerror(errno));
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    printf("peer %d %d\n", getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &credentials, &length), credentials.pid == getpid());
    shutdown(pair[0], SHUT_WR);
    printf("end of file %ld\n", (long)read(pair[1], received, 1));
}

static void streams(int family, struct sockaddr *address, socklen_t length)
{
    int server = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    printf("bind %d listen %d\n", bind(server, address, length), listen(server, 5));
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    printf("name %d %d\n", getsockname(server, (struct sockaddr *)&name, &size), name.ss_family);
    if (fork() == 0) {
        int client = socket(family, SOCK_STREAM, 0);
        if (connect(client, (struct sockaddr *)&name, size)) _exit(1);
        for (int i = 0; i < 1000; i++) send(client, "0123456789", 10, MSG_NOSIGNAL);
        _exit(0);
    }
    size = sizeof name;
    int connection = accept4(server, (struct sockaddr *)&name, &size, SOCK_NONBLOCK);
    long total = 0, got;
    char buffer[777];
    struct pollfd event = {connection, POLLIN, 0};
    while (poll(&event, 1, 5000) == 1 && (got = recv(connection, buffer, sizeof buffer, 0)) > 0) total += got;
    printf("received %ld\n", total);
    int status;
    wait(&status);
    printf("client %d\n", WEXITSTATUS(status));
}

int main(void)
{
    passing();
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "socket"};
    streams(AF_UNIX, (struct sockaddr *)&local, sizeof local);
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    streams(AF_INET, (struct sockaddr *)&internet, sizeof internet);

    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    bind(a, (struct sockaddr *)&internet, sizeof internet);
    socklen_t length = sizeof internet;
    getsockname(a, (struct sockaddr *)&internet, &length);
    printf("sendto %ld\n", (long)sendto(b, "datagram", 8, 0, (struct sockaddr *)&internet, length));
    char buffer[20] = "";
    struct sockaddr_in from;
    printf("recvfrom %ld", (long)recvfrom(a, buffer, 20, 0, (struct sockaddr *)&from, &length));
    printf(" %s from %s\n", buffer, inet_ntoa(from.sin_addr));
    connect(b, (struct sockaddr *)&internet, sizeof internet);
    struct mmsghdr several[2] = {{{.msg_iov = &(struct iovec){"one", 3}, .msg_iovlen = 1}, 0}, {{.msg_iov = &(struct iovec){"three", 5}, .msg_iovlen = 1}, 0}};
    printf("sendmmsg %d", sendmmsg(b, several, 2, 0));
    printf(" %u %u\n", several[0].msg_len, several[1].msg_len);
    char left[10], right[10];
    several[0].msg_hdr.msg_iov = &(struct iovec){left, 10};
    several[1].msg_hdr.msg_iov = &(struct iovec){right, 10};
    printf("recvmmsg %d", recvmmsg(a, several, 2, MSG_WAITFORONE, NULL));
    printf(" %u %u\n", several[0].msg_len, several[1].msg_len);
    printf("nothing there %ld %s\n", (long)recv(a, buffer, 20, MSG_DONTWAIT), strerror(errno));
    struct timeval wait_ = {0, 20000};
    printf("timeout %d", setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &wait_, sizeof wait_));
    printf(" %ld %s\n", (long)recv(a, buffer, 20, 0), strerror(errno));
    int value = 0;
    length = sizeof value;
    printf("type %d %d\n", getsockopt(a, SOL_SOCKET, SO_TYPE, &value, &length), value);
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    value = 1;
    printf("nodelay %d\n", setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value));
    internet.sin_port = htons(1);
    printf("refused %d %s\n", connect(tcp, (struct sockaddr *)&internet, sizeof internet), strerror(errno));
    printf("not connected %ld %s\n", (long)send(tcp, "x", 1, MSG_NOSIGNAL), strerror(errno));
    printf("not a socket %d %s\n", listen(0, 1), strerror(errno));
    printf("no family %d %s\n", socket(77, SOCK_STREAM, 0), strerror(errno));
    return 0;
}
