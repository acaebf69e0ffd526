/* Virtual sockets from within a guest: `vsock connect PORT` joins its streams with a port of the host,
   `vsock listen PORT` answers each connection with what it sends, in capitals. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <unistd.h>

static char buffer[1 << 16];

static void carry(int from, int to, int in_capitals)
{
    ssize_t count;

    while ((count = read(from, buffer, sizeof buffer)) > 0) {
        ssize_t done = 0;

        for (ssize_t index = 0; in_capitals && index < count; index++)
            buffer[index] = toupper(buffer[index]);
        while (done < count) {
            ssize_t written = write(to, buffer + done, count - done);

            if (written <= 0)
                exit(3);
            done += written;
        }
    }
}

int main(int count, char **words)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK};
    int end = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (count != 3 || end < 0)
        return 2;
    address.svm_port = strtoul(words[2], NULL, 10);
    if (!strcmp(words[1], "connect")) {
        address.svm_cid = VMADDR_CID_HOST;
        if (connect(end, (struct sockaddr *)&address, sizeof address) < 0) {
            perror("connect");
            return 1;
        }
        carry(0, end, 0);
        shutdown(end, SHUT_WR);
        carry(end, 1, 0);
        return 0;
    }
    address.svm_cid = VMADDR_CID_ANY;
    if (bind(end, (struct sockaddr *)&address, sizeof address) < 0 || listen(end, 8) < 0)
        return 1;
    puts("listening");
    fflush(stdout);
    for (;;) {
        int each = accept(end, NULL, NULL);

        carry(each, each, 1);
        close(each);
    }
}
