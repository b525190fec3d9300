// Thin C for Linux interfaces Swift cannot reach: variadic calls, macros, and declarations that are newer
// than the distribution's headers (Debian 12 ships 6.1's). Every declaration states since which kernel.
#ifndef CLINUX_H
#define CLINUX_H
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <sys/socket.h>

// --- fanotify pre-content events (Linux 6.14) -------------------------------------------------------------------
// fanotify(7). Declared here because Debian 12's <sys/fanotify.h> lacks all of them.
#define CLINUX_FAN_CLASS_PRE_CONTENT 0x00000008u
#define CLINUX_FAN_CLOEXEC 0x00000001u
#define CLINUX_FAN_NONBLOCK 0x00000002u
#define CLINUX_FAN_UNLIMITED_QUEUE 0x00000010u
#define CLINUX_FAN_UNLIMITED_MARKS 0x00000020u
#define CLINUX_FAN_PRE_ACCESS 0x00100000ull
#define CLINUX_FAN_Q_OVERFLOW 0x00004000ull
#define CLINUX_FAN_MARK_ADD 0x00000001u
#define CLINUX_FAN_MARK_REMOVE 0x00000002u
#define CLINUX_FAN_EVENT_INFO_TYPE_RANGE 6
#define CLINUX_FAN_ALLOW 0x01u
#define CLINUX_FAN_DENY 0x02u
// FAN_DENY_ERRNO: the errno in the top byte of the response. Legal: EPERM EIO EBUSY ETXTBSY EAGAIN ENOSPC EDQUOT.
#define CLINUX_FAN_DENY_ERRNO(err) (CLINUX_FAN_DENY | ((uint32_t)(err) & 0xffu) << 24)

// The kernel's O_LARGEFILE (0 in 64-bit libc headers): without it, an event on a file over 2 GiB fails with EOVERFLOW.
#define CLINUX_O_LARGEFILE 0100000

struct clinux_fan_event {
    uint32_t event_len;
    uint8_t vers;
    uint8_t reserved;
    uint16_t metadata_len;
    uint64_t mask;
    int32_t fd;
    int32_t pid;
};
struct clinux_fan_range {
    uint8_t info_type;
    uint8_t pad;
    uint16_t len;
    uint32_t pad2;
    uint64_t offset;
    uint64_t count;
};
struct clinux_fan_response {
    int32_t fd;
    uint32_t response;
};
_Static_assert(sizeof(struct clinux_fan_event) == 24, "fanotify_event_metadata");
_Static_assert(sizeof(struct clinux_fan_range) == 24, "fanotify_event_info_range");
_Static_assert(sizeof(struct clinux_fan_response) == 8, "fanotify_response");

int clinux_fanotify_init(uint32_t flags, uint32_t event_f_flags);
// Marks the inode behind fd (AT_EMPTY_PATH does not exist for fanotify_mark: a NULL path means the dirfd itself).
int clinux_fanotify_mark_fd(int group, uint32_t flags, uint64_t mask, int fd);

// --- files -----------------------------------------------------------------------------------------------------
// openat2(2), Linux 5.6: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, so no path component can lead elsewhere.
int clinux_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
// A directory named by one entry of another, to be listed: no link is followed, no mount point entered (EXDEV).
int clinux_open_child(int dirfd, const char *name);
// The directory above an open one.
int clinux_open_parent(int dirfd);
int clinux_open(const char *path, int flags, mode_t mode);
int clinux_memfd(const char *name, uint32_t flags);
#define CLINUX_MFD_CLOEXEC 1u
#define CLINUX_MFD_ALLOW_SEALING 2u
int clinux_add_seals(int fd, int seals);
int clinux_get_seals(int fd);
#define CLINUX_SEAL_SEAL 1
#define CLINUX_SEAL_SHRINK 2
#define CLINUX_SEAL_GROW 4
#define CLINUX_SEAL_WRITE 8
int clinux_set_cloexec(int fd, int on);
int clinux_dup_at_least(int fd, int minimum);
// FICLONERANGE, Linux 4.5: share extents on btrfs and xfs.
int clinux_clone_range(int dst, uint64_t dst_offset, int src, uint64_t src_offset, uint64_t length);

// pread(2) of what is in the page cache only (preadv2(2) with RWF_NOWAIT, Linux 4.14): -1 with EAGAIN where the disk
// would have to be asked, EOPNOTSUPP where the file system cannot tell.
ssize_t clinux_pread_nowait(int fd, void *buffer, size_t count, off_t offset);

// --- the mount API (Linux 5.2): fsconfig has no 4095-byte limit on the device list ------------------------------------
int clinux_fsopen(const char *fs);
int clinux_fsconfig_string(int fs, const char *key, const char *value);
int clinux_fsconfig_flag(int fs, const char *key);
int clinux_fsconfig_create(int fs);
int clinux_fsmount(int fs, uint32_t attributes);
int clinux_move_mount(int mount, const char *target);
// open_tree(2) with OPEN_TREE_CLONE: a copy of the mount at `source` that is nowhere yet.
int clinux_clone_mount(const char *source);
// mount_setattr(2), Linux 5.12: sets attributes of a mount that is nowhere yet.
int clinux_mount_setattr(int mount, uint64_t set);
#define CLINUX_MOUNT_RDONLY 1ull
#define CLINUX_MOUNT_NOSUID 2ull
#define CLINUX_MOUNT_NODEV 4ull

// --- sockets ---------------------------------------------------------------------------------------------------------
// One SOCK_SEQPACKET message with up to 66 descriptors beside it. Returns bytes, or -1 with errno.
ssize_t clinux_send(int sock, const void *bytes, size_t count, const int *fds, int fd_count, int flags);
// *fd_count: in capacity, out received. *truncated: the message or its descriptors were cut (those are closed).
ssize_t clinux_receive(int sock, void *bytes, size_t capacity, int *fds, int *fd_count, int *truncated, int flags);
int clinux_peer_credentials(int sock, int *pid, unsigned *uid, unsigned *gid);
int clinux_accept(int sock);
// statfs(2) f_type, or -1 (Glibc's Swift module leaves <sys/statfs.h> out).
long clinux_fs_magic(int fd);
int clinux_unix_address(struct sockaddr_storage *out, socklen_t *length, const char *path);

// --- processes -------------------------------------------------------------------------------------------------------
#include <signal.h>
int clinux_signalfd(const sigset_t *set);
int clinux_set_parent_death_signal(int signal);
int clinux_set_thread_name(const char *name);
int clinux_close_range(unsigned first, unsigned last);
// Removes every capability from the bounding set (Linux 2.6.25); needs CAP_SETPCAP, so do it while still root.
int clinux_drop_bounding_set(void);
// Empties the calling thread's ambient, inheritable, permitted and effective sets, for which glibc has no wrapper, and
// sets PR_SET_NO_NEW_PRIVS (Linux 3.5).
int clinux_clear_capabilities(void);
#endif
