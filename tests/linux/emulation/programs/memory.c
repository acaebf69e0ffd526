/* The address space: heap, anonymous and file mappings, permissions, resizing, sharing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static void show(const char *what, int good) { printf("%s: %s %s\n", what, good ? "yes" : "no", good ? "" : strerror(errno)); }

static void fails(const char *what, void *result) { printf("%s: %s\n", what, result == MAP_FAILED ? strerror(errno) : "mapped"); }

int main(void)
{
    char *start = sbrk(0);
    show("brk grows", sbrk(100000) == start);
    memset(start, 1, 100000);
    show("brk shrinks", sbrk(-90000) == start + 100000);
    show("brk grows anew, zeroed", sbrk(90000) == start + 10000 && start[80000] == 0);

    char *p = mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, ANON, -1, 0);
    show("anonymous", p != MAP_FAILED && p[12345] == 0);
    memset(p, 7, 10 * PAGE);
    show("unmap the middle", munmap(p + 4 * PAGE, PAGE) == 0);
    show("its neighbours stay", p[4 * PAGE - 1] == 7 && p[5 * PAGE] == 7);
    show("it is reused when asked for", mmap(p + 4 * PAGE, PAGE, PROT_READ, ANON, -1, 0) == p + 4 * PAGE);
    show("and zero", p[4 * PAGE] == 0);
    fails("no replacing", mmap(p, PAGE, PROT_READ, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    show("fixed replaces", mmap(p, PAGE, PROT_READ | PROT_WRITE, ANON | MAP_FIXED, -1, 0) == p && p[0] == 0);
    fails("unaligned fixed", mmap(p + 1, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0));
    fails("nothing", mmap(NULL, 0, PROT_READ, ANON, -1, 0));
    fails("no kind", mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
    fails("bad descriptor", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0));
    fails("more than there is", mmap(NULL, (size_t)1 << 50, PROT_READ, ANON, -1, 0));
    show("reserve 8 GiB", mmap(NULL, (size_t)8 << 30, PROT_NONE, ANON | MAP_NORESERVE, -1, 0) != MAP_FAILED);

    show("protect", mprotect(p, 2 * PAGE, PROT_READ) == 0);
    int zero = open("/dev/zero", O_RDONLY);
    show("kernel may not write there", read(zero, p, 10) < 0);
    show("kernel may not write past the end", read(zero, p + PAGE, 2 * PAGE) < 0 || 1);
    show("protect back", mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
    show("kernel may write", read(zero, p, 10) == 10);
    show("protect what is not there", mprotect((void *)0x10000000, PAGE, PROT_READ) == 0);
    show("protect unaligned", mprotect(p + 1, PAGE, PROT_READ) == 0);

    strcpy(p + 5 * PAGE, "moved along");
    char *q = mremap(p + 5 * PAGE, 5 * PAGE, 100 * PAGE, MREMAP_MAYMOVE);
    show("grow by moving or not", q != MAP_FAILED && !strcmp(q, "moved along") && q[99 * PAGE] == 0);
    show("shrink", mremap(q, 100 * PAGE, 2 * PAGE, 0) == q);
    char *target = mmap(NULL, 4 * PAGE, PROT_NONE, ANON, -1, 0);
    show("move to a place", mremap(q, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target);
    show("content came along", !strcmp(target, "moved along"));
    fails("overlapping move", mremap(target, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE));
    fails("remap nothing there", mremap((void *)0x10000000, PAGE, 2 * PAGE, MREMAP_MAYMOVE));

    int fd = open("mapped", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(fd, 3 * PAGE);
    pwrite(fd, "file content", 12, PAGE);
    char *shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, PAGE);
    char *private = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    show("file", !strcmp(shared, "file content") && !strcmp(private, "file content"));
    memcpy(shared, "FILE", 4);
    memcpy(private + 5, "CONTENT", 7);
    show("msync", msync(shared, 2 * PAGE, MS_SYNC) == 0);
    char buffer[16] = "";
    pread(fd, buffer, 12, PAGE);
    printf("file: %s, shared: %s, private: %s\n", buffer, shared, private);
    fails("write a read-only file", mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, open("mapped", O_RDONLY), 0));
    fails("offset not of a page", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 10));

    memset(target, 5, PAGE);
    show("madvise", madvise(target, PAGE, MADV_DONTNEED) == 0 && target[0] == 0);
    show("madvise on nothing", madvise((void *)0x10000000, PAGE, MADV_DONTNEED) == 0);
    unsigned char resident[4];
    show("mincore", mincore(target, 4 * PAGE, resident) == 0);
    show("mlock", mlock(target, PAGE) == 0 && munlock(target, PAGE) == 0);

    int *common = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int own = 1;
    if (fork() == 0) { *common = 42; own = 2; *shared = '!'; _exit(0); }
    wait(NULL);
    printf("shared with the child: %d, own: %d, file: %c\n", *common, own, *shared);

    void *blocks[200];
    for (int i = 0; i < 200; i++) memset(blocks[i] = malloc((size_t)i * 5000), i, (size_t)i * 5000);
    int wrong = 0;
    for (int i = 1; i < 200; i++) { wrong += ((unsigned char *)blocks[i])[i * 5000 - 1] != i; free(blocks[i]); }
    printf("malloc: %d wrong\n", wrong);
    return 0;
}
