// A server with a thread for each connection, a pool of workers behind a queue, and clients that load it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 8, REQUESTS = 60, WORKERS = 3 };

struct job { int socket; char text[32]; struct job *next; };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static struct job *jobs;
static int closing;
static _Atomic long served, connections;

static void *work(void *argument) {
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (!jobs && !closing) pthread_cond_wait(&filled, &mutex);
        struct job *job = jobs;
        if (job) jobs = job->next;
        pthread_mutex_unlock(&mutex);
        if (!job) return 0;
        char reply[48];
        long number = atol(job->text), sum = 0;
        for (long i = 1; i <= number; i++) sum += i * i % 7;
        write(job->socket, reply, sprintf(reply, "%ld\n", sum));
        served++;
        free(job);
    }
}

static void *serve(void *argument) {
    int socket = (int)(long)argument;
    char text[32];
    connections++;
    for (int length; (length = read(socket, text, sizeof text - 1)) > 0;) {
        struct job *job = calloc(1, sizeof *job);
        job->socket = socket;
        memcpy(job->text, text, length);
        pthread_mutex_lock(&mutex);
        job->next = jobs;
        jobs = job;
        pthread_cond_signal(&filled);
        pthread_mutex_unlock(&mutex);
    }
    close(socket);
    return 0;
}

static void *accept_all(void *argument) {
    int listener = *(int *)argument;
    pthread_t threads[CLIENTS];
    for (long i = 0; i < CLIENTS; i++) {
        long socket = accept(listener, 0, 0);
        pthread_create(&threads[i], 0, serve, (void *)socket);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(threads[i], 0);
    return 0;
}

static struct sockaddr_in address;

static void *load(void *argument) {
    int server = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN}, ready;
    long total = 0;
    connect(server, (struct sockaddr *)&address, sizeof address);
    epoll_ctl(poller, EPOLL_CTL_ADD, server, &event);
    for (int i = 0; i < REQUESTS; i++) {
        char text[32];
        write(server, text, sprintf(text, "%ld\n", (long)argument * 100 + i));
        if (i % 2) {
            epoll_wait(poller, &ready, 1, -1);
        } else {
            struct pollfd one = {.fd = server, .events = POLLIN};
            poll(&one, 1, -1);
        }
        text[read(server, text, sizeof text - 1)] = 0;
        total += atol(text);
    }
    close(poller);
    close(server);
    return (void *)total;
}

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener, (struct sockaddr *)&address, sizeof address);
    listen(listener, CLIENTS);
    getsockname(listener, (struct sockaddr *)&address, &size);
    pthread_t acceptor, workers[WORKERS], clients[CLIENTS];
    pthread_create(&acceptor, 0, accept_all, &listener);
    for (int i = 0; i < WORKERS; i++) pthread_create(&workers[i], 0, work, 0);
    for (long i = 0; i < CLIENTS; i++) pthread_create(&clients[i], 0, load, (void *)i);
    long total = 0;
    for (int i = 0; i < CLIENTS; i++) {
        void *result;
        pthread_join(clients[i], &result);
        total += (long)result;
    }
    pthread_join(acceptor, 0);
    pthread_mutex_lock(&mutex);
    closing = 1;
    pthread_cond_broadcast(&filled);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], 0);
    printf("connections %ld\nserved %ld\ntotal %ld\n", connections, served, total);
    return 0;
}
