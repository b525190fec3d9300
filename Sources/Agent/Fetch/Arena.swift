import CLinux
import Glibc
import LinuxSystem

/// The memory chunks pass through on their way to the gate: one memfd of `slotCount` slots, mapped here and there.
///
/// Pages exist from their first use only, so large slots cost nothing until a large chunk comes, and `release` gives all
/// of them back. Whoever was given a slot number is its only writer until it is given back: `FetchScheduler` sees to it.
package final class Arena: @unchecked Sendable {
    // @unchecked: the mapping never changes; what lies in a slot is its holder's alone.
    package let file: File
    package let slotSize: Int
    package let slotCount: Int
    private let base: UnsafeMutableRawPointer

    /// Makes and maps the memory; sealed, so that the gate's mapping can never be cut short.
    package init(slotSize: Int, slotCount: Int) throws(SystemError) {
        self.slotSize = slotSize
        self.slotCount = slotCount
        file = try File.memory(name: "chunkd-arena", size: slotSize * slotCount)
        try file.seal(CLINUX_SEAL_SHRINK | CLINUX_SEAL_GROW)
        guard
            let base = mmap(nil, slotSize * slotCount, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0),
            base != MAP_FAILED
        else { throw SystemError(errno, "mmap", "arena of \(slotSize * slotCount) bytes") }
        self.base = base
    }

    deinit { munmap(base, slotSize * slotCount) }

    /// A slot's memory.
    package func slot(_ number: UInt32) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: base + Int(number) * slotSize, count: slotSize)
    }

    /// Gives all pages back to the system; no slot may be in use.
    package func release() {
        // MADV_REMOVE frees the memfd's pages for both processes (madvise(2)). A failure costs memory, nothing else.
        _ = madvise(base, slotSize * slotCount, Int32(MADV_REMOVE))
    }
}
