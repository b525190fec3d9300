/* What runs in a container to measure its files: the last word on a line is a number.
 *
 *   measure read PATH    reads every file beneath PATH; bytes a second
 *   measure stat PATH    stats every file beneath PATH again and again, three seconds; calls a second
 *
 * Linked statically: the image has no C library. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 100000
static char *files[FILES_MAX];
static size_t count;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void find(char *path)
{
    char *roots[] = {path, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *entry;
    if (!walk)
        err(1, "%s", path);
    while ((entry = fts_read(walk)))
        if (entry->fts_info == FTS_F && count < FILES_MAX && !(files[count++] = strdup(entry->fts_path)))
            err(1, "strdup");
    fts_close(walk);
    if (count == 0)
        errx(1, "no files in %s", path);
}

static double read_all(void)
{
    static char buffer[1 << 20];
    double start = now(), bytes = 0;
    for (size_t i = 0; i < count; i++) {
        ssize_t n;
        int file = open(files[i], O_RDONLY);
        if (file < 0)
            err(1, "%s", files[i]);
        while ((n = read(file, buffer, sizeof buffer)) > 0)
            bytes += n;
        if (n < 0)
            err(1, "%s", files[i]);
        close(file);
    }
    return bytes / (now() - start);
}

static double stat_all(void)
{
    struct stat found;
    double start = now(), calls = 0, seconds = 0;
    while (seconds < 3) {
        for (size_t i = 0; i < count; i++)
            if (stat(files[i], &found) != 0)
                err(1, "%s", files[i]);
        calls += count;
        seconds = now() - start;
    }
    return calls / seconds;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: measure read|stat PATH");
    find(argv[2]);
    printf("%.0f\n", strcmp(argv[1], "read") == 0 ? read_all() : stat_all());
    return 0;
}
