/* A stream of bytes over TCP: `stream ADDRESS PORT` takes what comes to its end, `stream ADDRESS PORT MIBS` sends. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[1 << 18];

int main(int count, char **words)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int end = socket(AF_INET, SOCK_STREAM, 0);
    long left = count > 3 ? atol(words[3]) << 20 : 0;

    inet_pton(AF_INET, words[1], &address.sin_addr);
    address.sin_port = htons(atoi(words[2]));
    if (connect(end, (struct sockaddr *)&address, sizeof address) < 0)
        return 1;
    while (left > 0) {
        ssize_t written = write(end, buffer, sizeof buffer);

        if (written < 0)
            return 1;
        left -= written;
    }
    if (count > 3)
        shutdown(end, SHUT_WR);
    while (read(end, buffer, sizeof buffer) > 0)
        ;
    return 0;
}
