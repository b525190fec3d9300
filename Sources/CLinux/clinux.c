#define _GNU_SOURCE 1
#include "CLinux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int clinux_fanotify_init(uint32_t flags, uint32_t event_f_flags) {
    return (int)syscall(SYS_fanotify_init, flags, event_f_flags);
}
int clinux_fanotify_mark_fd(int group, uint32_t flags, uint64_t mask, int fd) {
    return (int)syscall(SYS_fanotify_mark, group, flags, mask, fd, NULL);
}

int clinux_open_beneath(int dirfd, const char *path, int flags, mode_t mode) {
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                           .mode = (flags & O_CREAT) ? mode : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}
int clinux_open_child(int dirfd, const char *name) {
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    return (int)syscall(SYS_openat2, dirfd, name, &how, sizeof how);
}
int clinux_open_parent(int dirfd) { return openat(dirfd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); }
int clinux_open(const char *path, int flags, mode_t mode) { return open(path, flags | O_CLOEXEC, mode); }
int clinux_memfd(const char *name, uint32_t flags) { return memfd_create(name, flags); }
int clinux_add_seals(int fd, int seals) { return fcntl(fd, F_ADD_SEALS, seals); }
int clinux_get_seals(int fd) { return fcntl(fd, F_GET_SEALS); }
int clinux_set_cloexec(int fd, int on) { return fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0); }
int clinux_dup_at_least(int fd, int minimum) { return fcntl(fd, F_DUPFD_CLOEXEC, minimum); }
ssize_t clinux_pread_nowait(int fd, void *buffer, size_t count, off_t offset) {
    struct iovec piece = {.iov_base = buffer, .iov_len = count};
    return preadv2(fd, &piece, 1, offset, RWF_NOWAIT);
}
int clinux_clone_range(int dst, uint64_t dst_offset, int src, uint64_t src_offset, uint64_t length) {
    struct file_clone_range range = {
        .src_fd = src, .src_offset = src_offset, .src_length = length, .dest_offset = dst_offset};
    return ioctl(dst, FICLONERANGE, &range);
}

int clinux_fsopen(const char *fs) { return (int)syscall(SYS_fsopen, fs, 1u /* FSOPEN_CLOEXEC */); }
int clinux_fsconfig_string(int fs, const char *key, const char *value) {
    return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}
int clinux_fsconfig_flag(int fs, const char *key) {
    return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0);
}
int clinux_fsconfig_create(int fs) {
    return (int)syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}
int clinux_fsmount(int fs, uint32_t attributes) {
    return (int)syscall(SYS_fsmount, fs, 1u /* FSMOUNT_CLOEXEC */, attributes);
}
int clinux_clone_mount(const char *source) {
    return (int)syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | O_CLOEXEC);
}
int clinux_mount_setattr(int mount, uint64_t set) {
    struct { uint64_t attr_set, attr_clr, propagation, userns_fd; } attributes = {.attr_set = set};
    return (int)syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}
int clinux_move_mount(int mount, const char *target) {
    return (int)syscall(SYS_move_mount, mount, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
}

enum { max_fds = 66 };
ssize_t clinux_send(int sock, const void *bytes, size_t count, const int *fds, int fd_count, int flags) {
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = count};
    union { char space[CMSG_SPACE(sizeof(int) * max_fds)]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (fd_count < 0 || fd_count > max_fds) { errno = EINVAL; return -1; }
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)fd_count);
    }
    return sendmsg(sock, &message, flags | MSG_NOSIGNAL);
}
ssize_t clinux_receive(int sock, void *bytes, size_t capacity, int *fds, int *fd_count, int *truncated, int flags) {
    struct iovec vector = {.iov_base = bytes, .iov_len = capacity};
    union { char space[CMSG_SPACE(sizeof(int) * max_fds)]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1,
                             .msg_control = control.space, .msg_controllen = sizeof control.space};
    int limit = *fd_count, received = 0;
    ssize_t got = recvmsg(sock, &message, flags | MSG_CMSG_CLOEXEC);
    *fd_count = 0;
    *truncated = 0;
    if (got < 0) return got;
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) *truncated = 1;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        int count = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + sizeof(int) * (size_t)i, sizeof fd);
            if (*truncated || received >= limit) { close(fd); *truncated = 1; } else fds[received++] = fd;
        }
    }
    if (*truncated) { while (received > 0) close(fds[--received]); }
    *fd_count = received;
    return got;
}
int clinux_peer_credentials(int sock, int *pid, unsigned *uid, unsigned *gid) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -1;
    *pid = credentials.pid; *uid = credentials.uid; *gid = credentials.gid;
    return 0;
}
int clinux_unix_address(struct sockaddr_storage *out, socklen_t *length, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t count = strlen(path);
    if (count == 0 || count >= sizeof address.sun_path) { errno = ENAMETOOLONG; return -1; }
    memcpy(address.sun_path, path, count + 1);
    memcpy(out, &address, sizeof address);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + count + 1);
    return 0;
}

int clinux_set_parent_death_signal(int signal) { return prctl(PR_SET_PDEATHSIG, signal); }
int clinux_set_thread_name(const char *name) { return pthread_setname_np(pthread_self(), name); }
int clinux_close_range(unsigned first, unsigned last) { return (int)syscall(SYS_close_range, first, last, 0u); }
int clinux_accept(int sock) { return accept4(sock, NULL, NULL, SOCK_CLOEXEC); }
#include <sys/statfs.h>
long clinux_fs_magic(int fd) {
    struct statfs value;
    return fstatfs(fd, &value) < 0 ? -1 : (long)value.f_type;
}
#include <sys/signalfd.h>
int clinux_signalfd(const sigset_t *set) { return signalfd(-1, set, SFD_CLOEXEC); }

#include <linux/capability.h>
int clinux_drop_bounding_set(void) {
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) return -1;
    }
    return 0;
}
int clinux_clear_capabilities(void) {
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) return -1;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];
    memset(data, 0, sizeof data);
    if (syscall(SYS_capset, &header, data) < 0) return -1;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
