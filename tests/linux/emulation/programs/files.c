/* Files: opening, reading and writing at offsets and in vectors, status, links, locks, errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); printf("%s = %ld %s\n", #call, r, r < 0 ? strerror(errno) : ""); } while (0)

static void show_stat(const char *name)
{
    struct stat s;
    if (lstat(name, &s) < 0) { printf("%s: %s\n", name, strerror(errno)); return; }
    printf("%s: mode %o links %ld size %ld blksize %ld uid %d mtime %ld.%09ld\n", name, s.st_mode, (long)s.st_nlink,
           (long)s.st_size, (long)s.st_blksize, s.st_uid, s.st_mtime < 10000 ? (long)s.st_mtim.tv_sec : 0, s.st_mtime < 10000 ? s.st_mtim.tv_nsec : 0);
}

int main(void)
{
    char buffer[64] = "";
    umask(022);
    int fd = open("a", O_RDWR | O_CREAT | O_EXCL, 0666);
    printf("open %d\n", fd);
    SHOW(open("a", O_RDWR | O_CREAT | O_EXCL, 0666));
    SHOW(open("missing/a", O_RDONLY));
    SHOW(open("a", O_DIRECTORY));
    SHOW(write(fd, "hello world\n", 12));
    SHOW(pwrite(fd, "HELLO", 5, 0));
    SHOW(pread(fd, buffer, 11, 0));
    puts(buffer);
    SHOW(lseek(fd, 0, SEEK_CUR));
    SHOW(lseek(fd, -3, SEEK_END));
    SHOW(lseek(fd, -30, SEEK_SET));
    SHOW(lseek(999, 0, SEEK_SET));
    struct iovec out[3] = {{"one ", 4}, {"", 0}, {"two\n", 4}};
    SHOW(writev(fd, out, 3));
    SHOW(writev(fd, out, 2000));
    SHOW(lseek(fd, 0, SEEK_SET));
    char left[8] = "", right[32] = "";
    struct iovec in[2] = {{left, 5}, {right, 20}};
    SHOW(readv(fd, in, 2));
    printf("[%s] [%s]\n", left, right);
    SHOW(preadv(fd, in, 2, 2));
    struct iovec wild[1] = {{(void *)16, 5}};
    SHOW(preadv(fd, wild, 1, 0));
    SHOW(read(fd, (void *)16, 5));
    SHOW(pread(fd, (void *)0xffffffffffff0000, 5, 0));
    SHOW(write(fd, (void *)0x3f0000000000, 5));
    SHOW(open((void *)16, O_RDONLY));
    SHOW(ftruncate(fd, 100));
    SHOW(truncate("a", 40));
    SHOW(fallocate(fd, 0, 0, 8192));
    SHOW(fsync(fd));
    struct timespec times[2] = {{1000, 5}, {2000, 123456789}};
    SHOW(futimens(fd, times));
    show_stat("a");
    SHOW(chmod("a", 0640));
    SHOW(link("a", "b"));
    SHOW(symlink("a", "c"));
    SHOW(readlink("c", buffer, sizeof buffer));
    show_stat("b");
    SHOW(rename("b", "d"));
    SHOW(renameat2(AT_FDCWD, "d", AT_FDCWD, "a", RENAME_NOREPLACE));
    SHOW(access("a", R_OK | W_OK));
    SHOW(access("a", X_OK));
    SHOW(faccessat(AT_FDCWD, "c", F_OK, AT_SYMLINK_NOFOLLOW));
    SHOW(chown("a", -1, -1));
    struct statx x;
    SHOW(statx(AT_FDCWD, "a", 0, STATX_BASIC_STATS, &x));
    printf("statx mode %o size %llu nlink %u\n", x.stx_mode, (unsigned long long)x.stx_size, x.stx_nlink);
    struct statfs f;
    SHOW(statfs(".", &f));
    printf("statfs bsize %ld namelen %ld\n", (long)f.f_bsize, (long)f.f_namelen);
    int copy = dup(fd);
    SHOW(dup2(copy, 20));
    SHOW(dup3(copy, 21, O_CLOEXEC));
    SHOW(dup3(copy, copy, 0));
    SHOW(fcntl(20, F_GETFD));
    SHOW(fcntl(21, F_GETFD));
    SHOW(fcntl(fd, F_GETFL));
    SHOW(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    SHOW(fcntl(20, F_GETFL));
    SHOW(fcntl(fd, F_DUPFD_CLOEXEC, 30));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 3};
    SHOW(fcntl(fd, F_SETLK, &lock));
    lock.l_type = F_RDLCK;
    SHOW(fcntl(fd, F_GETLK, &lock));
    printf("lock type %d\n", lock.l_type);
    SHOW(flock(fd, LOCK_EX | LOCK_NB));
    SHOW(fcntl(fd, 9999));
    int to = open("e", O_RDWR | O_CREAT | O_TRUNC, 0600);
    off_t offset = 0;
    SHOW(sendfile(to, fd, &offset, 12));
    printf("offset %ld\n", (long)offset);
    loff_t from = 0;
    SHOW(copy_file_range(fd, &from, to, NULL, 8, 0));
    int pipes[2];
    SHOW(pipe2(pipes, O_CLOEXEC));
    SHOW(write(pipes[1], "piped", 5));
    SHOW(splice(pipes[0], NULL, to, NULL, 5, 0));
    show_stat("e");
    SHOW(syncfs(to));
    SHOW(unlink("missing"));
    SHOW(unlink("d"));
    SHOW(rmdir("a"));
    SHOW(mkfifo("p", 0600));
    show_stat("p");
    SHOW(close_range(20, 40, 0));
    SHOW(close(20));
    SHOW(syscall(SYS_openat2, AT_FDCWD, "a", &(unsigned long[3]){O_RDONLY, 0, 0x08}, 24) >= 0);
    SHOW(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &(unsigned long[3]){O_RDONLY, 0, 0x08}, 24));
    return 0;
}
