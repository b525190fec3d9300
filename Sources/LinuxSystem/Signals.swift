import CLinux
import Glibc

/// Signals as a descriptor that can be waited for (signalfd(2)); they are blocked for the whole process, so make this
/// before any thread.
package struct Signals: ~Copyable, Sendable {
    private let file: File

    package init(blocking numbers: [Int32]) throws(SystemError) {
        var set = sigset_t()
        sigemptyset(&set)
        for number in numbers { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        file = File(owning: try retrying("signalfd") { clinux_signalfd(&set) })
    }

    /// Waits for signals, and for `other` to be readable or closed when given; at most `milliseconds`, then there is
    /// neither. Negative is without a bound.
    package func wait(
        alsoFor other: File? = nil, milliseconds: Int32 = -1
    ) throws(SystemError) -> (signals: [Int32], file: Bool) {
        var polls = [pollfd(fd: file.descriptor, events: Int16(POLLIN), revents: 0)]
        if let other { polls.append(pollfd(fd: other.descriptor, events: Int16(POLLIN), revents: 0)) }
        try retrying("poll") { poll(&polls, nfds_t(polls.count), milliseconds) }
        var signals: [Int32] = []
        if polls[0].revents != 0 {
            // One signalfd_siginfo is 128 bytes; its first word is the number.
            var buffer = [UInt32](repeating: 0, count: 32)
            if try retrying("read signalfd", "", { read(file.descriptor, &buffer, 128) }) == 128 {
                signals.append(Int32(bitPattern: buffer[0]))
            }
        }
        return (signals, polls.count > 1 && polls[1].revents != 0)
    }
}
