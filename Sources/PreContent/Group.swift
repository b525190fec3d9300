import CLinux
import Glibc
import LinuxSystem

/// A fanotify group of class pre-content: it is asked before a marked file's range is read (fanotify(7), Linux 6.14).
///
/// The queue is unlimited: on overflow the kernel lets readers go on, with zeros (kernel-facts, law 2). Any process
/// that holds the group's descriptor can answer any of its events by number (law 4). Thread-safe: each call is one
/// system call.
package final class Group: Sendable {
    /// The group's descriptor, to be kept open as long as a partly filled mount lives (law 3).
    package let file: File

    /// Adopts the group of a predecessor.
    package init(adopting file: File) { self.file = file }

    /// A new group. EPERM without CAP_SYS_ADMIN; EMFILE past fs.fanotify.max_user_groups; EINVAL before Linux 6.14.
    package convenience init() throws(SystemError) {
        let flags =
            CLINUX_FAN_CLASS_PRE_CONTENT | CLINUX_FAN_CLOEXEC | CLINUX_FAN_UNLIMITED_QUEUE | CLINUX_FAN_UNLIMITED_MARKS
        let descriptor = try retrying("fanotify_init", "pre-content group") {
            clinux_fanotify_init(UInt32(flags), UInt32(O_RDONLY | O_CLOEXEC | CLINUX_O_LARGEFILE))
        }
        self.init(adopting: File(owning: descriptor))
    }

    /// Asks for an event before each read of `target`. Files opened after this raise events, whoever opens them:
    /// mark before the mount (law 1) and write through a descriptor opened before the mark (law 6). Idempotent.
    package func mark(_ target: File) throws(SystemError) {
        try retrying("fanotify_mark add") {
            clinux_fanotify_mark_fd(
                file.descriptor, UInt32(CLINUX_FAN_MARK_ADD), UInt64(CLINUX_FAN_PRE_ACCESS), target.descriptor)
        }
    }

    /// Ends the events of `target` at once, also on a live mount. No mark is no error.
    package func unmark(_ target: File) throws(SystemError) {
        do throws(SystemError) {
            try retrying("fanotify_mark remove") {
                clinux_fanotify_mark_fd(
                    file.descriptor, UInt32(CLINUX_FAN_MARK_REMOVE), UInt64(CLINUX_FAN_PRE_ACCESS), target.descriptor)
            }
        } catch  where error.errno == ENOENT {}
    }

    /// One event as read: answer it through `PendingAccess`, never twice.
    package struct Event: Sendable {
        /// The event's descriptor number: its name until it is answered.
        package var descriptor: Int32
        /// The reading process (0 from another pid namespace).
        package var pid: Int32
        package var mask: UInt64
        /// Bytes about to be read; nil when the kernel sent no range (then: the whole file).
        package var range: Range<UInt64>?
    }

    /// Room for a few hundred events of 48 bytes.
    package static let bufferSize = 16 << 10

    /// Waits for events and calls `body` for each. `buffer` has `bufferSize` bytes and is reused, so that the loop does
    /// not allocate.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer, _ body: (Event) -> Void
    ) throws(SystemError) {
        let count = try retrying("read fanotify group") {
            Glibc.read(file.descriptor, buffer.baseAddress, buffer.count)
        }
        let headerSize = MemoryLayout<clinux_fan_event>.size
        var at = 0
        while at + headerSize <= count {
            let header = buffer.loadUnaligned(fromByteOffset: at, as: clinux_fan_event.self)
            let length = Int(header.event_len)
            guard length >= headerSize, at + length <= count else { break }
            body(
                Event(
                    descriptor: header.fd, pid: header.pid, mask: header.mask,
                    range: Self.range(in: buffer, from: at + Int(header.metadata_len), to: at + length)))
            at += length
        }
    }

    private static func range(in buffer: UnsafeMutableRawBufferPointer, from: Int, to end: Int) -> Range<UInt64>? {
        var at = from
        let size = MemoryLayout<clinux_fan_range>.size
        while at + 4 <= end {
            let type = buffer[at]
            let length = Int(buffer.loadUnaligned(fromByteOffset: at + 2, as: UInt16.self))
            guard length >= 4, at + length <= end else { return nil }
            if type == UInt8(CLINUX_FAN_EVENT_INFO_TYPE_RANGE), length >= size {
                let record = buffer.loadUnaligned(fromByteOffset: at, as: clinux_fan_range.self)
                let (end, overflow) = record.offset.addingReportingOverflow(record.count)
                return record.offset..<(overflow ? .max : end)
            }
            at += length
        }
        return nil
    }

    /// The answer to an access.
    package enum Verdict: Equatable, Sendable {
        case allow
        /// The reader of an EROFS mount sees EIO whatever is sent; direct readers see the errno.
        case deny(DenyErrno)
    }

    /// The errnos the kernel takes in FAN_DENY_ERRNO; any other would leave the reader blocked (law 8).
    package enum DenyErrno: Sendable {
        case io, noSpace, again

        var number: Int32 {
            switch self {
            case .io: EIO
            case .noSpace: ENOSPC
            case .again: EAGAIN
            }
        }
    }

    /// Answers the event with this number. False when nobody waits under it (answered already, or its reader died).
    @discardableResult
    package func answer(_ descriptor: Int32, _ verdict: Verdict) -> Bool {
        var response = clinux_fan_response(fd: descriptor, response: UInt32(CLINUX_FAN_ALLOW))
        if case .deny(let errno) = verdict {
            response.response = UInt32(CLINUX_FAN_DENY) | UInt32(errno.number) << 24
        }
        while true {
            let count = write(file.descriptor, &response, MemoryLayout<clinux_fan_response>.size)
            if count >= 0 { return true }
            switch errno {
            case EINTR: continue
            case ENOENT: return false
            // Anything else would leave a reader blocked for ever: a bug, and the supervisor's restart settles it.
            case let code: fatalError("fanotify response for \(descriptor): errno \(code)")
            }
        }
    }
}
