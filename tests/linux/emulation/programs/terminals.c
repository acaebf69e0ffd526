/* Terminals: a pseudo-terminal, its modes and size, a session on it, job control characters. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int main(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    printf("grant %d unlock %d name %d\n", grantpt(master), unlockpt(master), strncmp(ptsname(master), "/dev/pts/", 9));
    int line = open(ptsname(master), O_RDWR | O_NOCTTY);
    printf("terminals %d %d %d\n", isatty(master), isatty(line), isatty(open("/dev/null", O_RDONLY)));
    struct winsize size = {33, 101, 1, 2}, seen = {0};
    printf("set size %d", ioctl(master, TIOCSWINSZ, &size));
    ioctl(line, TIOCGWINSZ, &seen);
    printf(" seen %d %d %d %d\n", seen.ws_row, seen.ws_col, seen.ws_xpixel, seen.ws_ypixel);
    struct termios modes;
    printf("modes %d", tcgetattr(line, &modes));
    printf(" %o %o %o %o %d %d speed %o\n", modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag,
           modes.c_cc[VINTR], modes.c_cc[VEOF], cfgetospeed(&modes));
    char buffer[100] = "";
    write(master, "cooked\n", 7);
    printf("read %ld", (long)read(line, buffer, 100));
    printf(" %s", buffer);
    memset(buffer, 0, 100);
    printf("echo %ld\n", (long)read(master, buffer, 100));
    cfmakeraw(&modes);
    printf("raw %d\n", tcsetattr(line, TCSANOW, &modes));
    write(master, "r", 1);
    printf("read %ld\n", (long)read(line, buffer, 100));
    int waiting = -1;
    write(master, "abc", 3);
    usleep(20000);
    printf("waiting %d", ioctl(line, FIONREAD, &waiting));
    printf(" %d\n", waiting);
    tcflush(line, TCIOFLUSH);
    tcsendbreak(line, 0);
    modes.c_lflag |= ISIG | ICANON;
    tcsetattr(line, TCSADRAIN, &modes);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        if (ioctl(line, TIOCSCTTY, 0)) _exit(100);
        if (tcgetpgrp(line) != getpid()) _exit(101);
        int terminal = open("/dev/tty", O_RDWR);
        write(terminal, "ready", 5);
        pause();
        _exit(102);
    }
    read(master, buffer, 5);
    write(master, "\003", 1);
    int status;
    waitpid(child, &status, 0);
    printf("Ctrl-C: %d %d\n", WIFSIGNALED(status), WTERMSIG(status));
    printf("unknown request %d\n", ioctl(line, 0x7777, 0));
    printf("not a terminal %d %s\n", ioctl(open("/dev/null", O_RDONLY), TCGETS, &modes), strerror(errno));
    printf("closed %d %s\n", ioctl(99, TCGETS, &modes), strerror(errno));
    printf("bad pointer %d %s\n", ioctl(line, TIOCGWINSZ, 8), strerror(errno));
    close(line);
    printf("hang up %ld %s\n", (long)read(master, buffer, 100), strerror(errno));
    return 0;
}
