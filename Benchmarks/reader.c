// Reads a file the way a figure needs it, and prints one JSON line with times in microseconds.
//
//   reader random FILE COUNT SEED   COUNT reads of 4 KiB at distinct random blocks, no read-ahead (POSIX_FADV_RANDOM)
//   reader chunks FILE SEED OFFSETS-FILE   one 4 KiB read at each offset of the list, in random order, no read-ahead
//   reader sequential FILE          the whole file, 1 MiB a read
//   reader drop FILE                drop the file's cached pages
//
// The file's pages are dropped first, so that every read reaches the file system.
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
    exit(1);
}
static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}
static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}
static uint64_t state;
static uint64_t next(void) {  // SplitMix64
    uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}
static void shuffle(uint64_t *list, size_t count) {
    for (size_t i = count; i > 1; i--) {
        size_t other = next() % i;
        uint64_t kept = list[i - 1];
        list[i - 1] = list[other];
        list[other] = kept;
    }
}

static void at_offsets(int file, uint64_t *offsets, size_t count) {
    static char block[4096] __attribute__((aligned(4096)));
    double *times = malloc(count * sizeof *times);
    if (!times) die("malloc");
    posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
    double start = now_us();
    for (size_t i = 0; i < count; i++) {
        double before = now_us();
        if (pread(file, block, sizeof block, (off_t)offsets[i]) <= 0) die("pread");
        times[i] = now_us() - before;
    }
    double total = now_us() - start;
    qsort(times, count, sizeof *times, compare);
    printf("{\"reads\":%zu,\"mean_us\":%.3f,\"p50_us\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,\"max_us\":%.3f}\n", count,
           total / (double)count, times[count / 2], times[count * 9 / 10], times[count * 99 / 100], times[count - 1]);
    free(times);
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "usage: reader random|chunks|sequential|drop FILE …\n"); return 2; }
    int file = open(argv[2], O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) die(argv[2]);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    if (!strcmp(argv[1], "drop")) return 0;

    if (!strcmp(argv[1], "sequential")) {
        static char piece[1 << 20];
        unsigned long long bytes = 0;
        ssize_t got;
        double start = now_us();
        while ((got = read(file, piece, sizeof piece)) > 0) bytes += (unsigned long long)got;
        if (got < 0) die("read");
        double micro = now_us() - start;
        printf("{\"bytes\":%llu,\"seconds\":%.6f,\"mb_per_s\":%.1f}\n", bytes, micro / 1e6, (double)bytes / micro);
        return 0;
    }
    if (argc < 5) { fprintf(stderr, "reader: too few arguments\n"); return 2; }
    size_t blocks = (size_t)(status.st_size / 4096), count = 0;
    uint64_t *offsets = malloc((blocks ? blocks : 1) * sizeof *offsets);
    if (!offsets) die("malloc");
    if (!strcmp(argv[1], "random")) {
        state = strtoull(argv[4], NULL, 10);
        for (size_t i = 0; i < blocks; i++) offsets[i] = (uint64_t)i * 4096;
        shuffle(offsets, blocks);
        count = strtoull(argv[3], NULL, 10);
        if (count > blocks) count = blocks;
    } else {
        state = strtoull(argv[3], NULL, 10);
        FILE *list = fopen(argv[4], "r");
        if (!list) die(argv[4]);
        while (count < blocks && fscanf(list, "%lu", &offsets[count]) == 1) count++;
        fclose(list);
        shuffle(offsets, count);
    }
    if (count == 0) { fprintf(stderr, "reader: nothing to read\n"); return 1; }
    at_offsets(file, offsets, count);
    free(offsets);
    return 0;
}
