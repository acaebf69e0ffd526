/* Directories: making, listing, walking, moving about, removing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOW(call) do { errno = 0; long r = (long)(call); printf("%s = %ld %s\n", #call, r, r < 0 ? strerror(errno) : ""); } while (0)

static int visit(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    printf("%d %d %s\n", ftw->level, type, path);
    return 0;
}

int main(void)
{
    SHOW(mkdir("tree", 0755));
    SHOW(mkdir("tree", 0755));
    SHOW(mkdir("tree/sub", 0700));
    for (int i = 0; i < 300; i++) {
        char name[64];
        snprintf(name, sizeof name, "tree/sub/file-with-a-long-name-%03d", i);
        close(open(name, O_CREAT | O_WRONLY, 0644));
    }
    struct dirent **names;
    int count = scandir("tree/sub", &names, NULL, alphasort);
    printf("%d entries, first %s type %d, last %s type %d\n", count, names[0]->d_name, names[0]->d_type,
           names[count - 1]->d_name, names[count - 1]->d_type);
    DIR *directory = opendir("tree");
    int seen = 0;
    while (readdir(directory)) seen++;
    rewinddir(directory);
    while (readdir(directory)) seen++;
    printf("seen %d\n", seen);
    SHOW(fchdir(dirfd(directory)));
    char path[4096];
    char *name = getcwd(path, sizeof path);
    printf("cwd ends %s\n", strrchr(name, '/'));
    SHOW(getcwd(path, 2) != NULL);
    printf("errno %s\n", strerror(errno));
    SHOW(chdir(".."));
    SHOW(chdir("nowhere"));
    SHOW(rmdir("tree"));
    for (int i = 0; i < 299; i++) {
        char file[64];
        snprintf(file, sizeof file, "tree/sub/file-with-a-long-name-%03d", i);
        if (unlink(file)) perror(file);
    }
    int tree = open("tree", O_RDONLY | O_DIRECTORY);
    SHOW(mkdirat(tree, "x", 0711));
    SHOW(renameat(tree, "x", tree, "sub/y"));
    SHOW(symlinkat("sub", tree, "link"));
    SHOW(openat(tree, "link", O_RDONLY | O_NOFOLLOW));
    SHOW(unlinkat(tree, "link", 0));
    nftw("tree", visit, 10, FTW_PHYS | FTW_DEPTH);
    SHOW(unlinkat(tree, "sub", AT_REMOVEDIR));
    SHOW(unlinkat(tree, "sub/y", AT_REMOVEDIR));
    return 0;
}
