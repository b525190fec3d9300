import Glibc

/// The machine code this process has mapped.
package enum ProgramText {
    /// Takes the pages of all executable file mappings out of this process's page tables: resident memory shrinks, and
    /// what runs next comes back from the page cache (madvise(2), MADV_DONTNEED; such pages are never written, so
    /// nothing can be lost). For a process that sleeps most of its life. Failures cost memory only.
    package static func release() {
        guard let maps = try? readProcFile("/proc/self/maps") else { return }
        let ranges = maps.split(separator: UInt8(ascii: "\n")).compactMap {
            textRange(String(decoding: $0, as: UTF8.self))
        }
        // Nothing but these calls after the first: what runs comes back.
        for range in ranges {
            _ = madvise(UnsafeMutableRawPointer(bitPattern: range.lowerBound), range.count, MADV_DONTNEED)
        }
    }

    /// The addresses of a line of /proc/self/maps (proc(5)) when it is a private, read-only, executable file mapping.
    static func textRange(_ line: String) -> Range<UInt>? {
        let fields = line.split(separator: " ", omittingEmptySubsequences: true)
        guard fields.count >= 6, fields[1] == "r-xp", fields[5].hasPrefix("/") else { return nil }
        let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
        guard ends.count == 2, ends[0] < ends[1] else { return nil }
        return ends[0]..<ends[1]
    }
}
