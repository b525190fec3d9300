import Glibc

/// A reader that waits for our answer. Exactly one of `allow`, `deny` or dropping (which denies with EIO) happens.
///
/// The event's descriptor is closed only after the answer and after the journal forgot it: until then its number must
/// not be given to another event (kernel-facts, law 5).
package struct PendingAccess: ~Copyable, Sendable {
    private let group: Group
    private let journal: AccessJournal
    /// The event's number.
    package let descriptor: Int32
    /// What the end of this value answers.
    private var verdict = Group.Verdict.deny(.io)

    /// Takes over an event whose journal slot is written.
    package init(group: Group, journal: AccessJournal, descriptor: Int32) {
        self.group = group
        self.journal = journal
        self.descriptor = descriptor
    }

    /// The range is on disk: the reader goes on. Call only after the bytes were verified and written.
    package consuming func allow() { settle(.allow) }

    /// The reader gets an error.
    package consuming func deny(_ errno: Group.DenyErrno) { settle(.deny(errno)) }

    private consuming func settle(_ verdict: Group.Verdict) {
        self.verdict = verdict
    }

    deinit {
        group.answer(descriptor, verdict)
        journal.clear(descriptor)
        close(descriptor)
    }
}
