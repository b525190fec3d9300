// The floor under chunkgate: the least a process can do to serve a lazy EROFS mount whose data is all there.
//
//   floor_gate BOOTSTRAP BLOB MOUNTPOINT [MARK]
//
// Marks BLOB for pre-content events (MARK = 0 leaves it unmarked), mounts BOOTSTRAP with BLOB as its device, prints
// "ready", and answers ALLOW to every event until SIGTERM or SIGINT; then unmounts and prints "events N". One thread,
// one read(2) a batch of events, one write(2) an answer, nothing else: what a resident read costs at best.
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

// fanotify(7), Linux 6.14: newer than Debian 12's headers.
enum { class_pre_content = 0x08, cloexec = 0x01, unlimited_queue = 0x10, mark_add = 0x01, allow = 0x01 };
static const uint64_t pre_access = 0x00100000;
struct event { uint32_t length; uint8_t version, reserved; uint16_t metadata_length; uint64_t mask; int32_t fd, pid; };
struct response { int32_t fd; uint32_t response; };
_Static_assert(sizeof(struct event) == 24 && sizeof(struct response) == 8, "fanotify records");

static void die(const char *what) {
    fprintf(stderr, "floor_gate: %s: %s\n", what, strerror(errno));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: floor_gate BOOTSTRAP BLOB MOUNTPOINT [MARK]\n"); return 2; }
    const char *boot = argv[1], *blob = argv[2], *target = argv[3];
    int marked = argc < 5 || atoi(argv[4]) != 0;

    int group = (int)syscall(SYS_fanotify_init, class_pre_content | cloexec | unlimited_queue, O_RDWR | O_CLOEXEC);
    if (group < 0) die("fanotify_init");
    int file = open(blob, O_RDONLY | O_CLOEXEC);
    if (file < 0) die(blob);
    // The mark comes before the mount: EROFS opens its devices then (docs/architecture.md).
    if (marked && syscall(SYS_fanotify_mark, group, mark_add, pre_access, file, NULL) < 0) die("fanotify_mark");

    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    int signals = signalfd(-1, &stop, SFD_CLOEXEC);

    char options[4096];
    if (snprintf(options, sizeof options, "device=%s", blob) >= (int)sizeof options) { errno = ENAMETOOLONG; die(blob); }
    if (mount(boot, target, "erofs", MS_RDONLY, options) < 0) die("mount");
    puts("ready");
    fflush(stdout);

    unsigned long long events = 0;
    char buffer[64 * 1024] __attribute__((aligned(8)));
    struct pollfd wait[2] = {{.fd = group, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    fcntl(group, F_SETFL, O_NONBLOCK);
    for (;;) {
        ssize_t got = read(group, buffer, sizeof buffer);
        if (got < 0 && errno == EAGAIN) {
            if (poll(wait, 2, -1) < 0 && errno != EINTR) die("poll");
            if (wait[1].revents) break;
            continue;
        }
        if (got < 0) die("read");
        for (char *at = buffer; at < buffer + got;) {
            struct event *event = (struct event *)at;
            struct response answer = {.fd = event->fd, .response = allow};
            if (write(group, &answer, sizeof answer) != sizeof answer) die("answer");
            close(event->fd);
            events++;
            at += event->length;
        }
    }
    umount2(target, MNT_DETACH);
    printf("events %llu\n", events);
    return 0;
}
