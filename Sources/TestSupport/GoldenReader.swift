import Glibc
import LinuxSystem

/// Compares a mount with the tree it was made from, as programs read: in odd pieces, whole, mapped, and by metadata.
/// The oracle of every test that reads a mount (docs/architecture.md, invariant I1: no wrong byte).
///
/// Reads block the calling thread. It never crashes on an unreadable mapping: mapped pages are read by the kernel
/// (write(2) from the mapping says EFAULT where a program would get SIGBUS).
package struct GoldenReader: Sendable {
    /// The ways a regular file is read. Which comes first, and so meets the cold chunk, changes from file to file.
    package enum Way: CaseIterable, Sendable { case oddPieces, whole, mapped }

    /// What was compared.
    package struct Report: Equatable, Sendable {
        package var files = 0
        package var directories = 0
        package var others = 0
        /// Bytes of regular files, each counted once.
        package var bytes: UInt64 = 0
    }

    /// The first thing that differs.
    package struct Difference: Error, Equatable, CustomStringConvertible {
        /// Below the root of the tree.
        package let path: String
        package let what: String
        package let expected: String
        package let found: String

        package var description: String { "\(path): \(what): expected \(expected), found \(found)" }
    }

    private let original: BytePath
    private let ways: [Way]
    private let metadata: Bool
    private let seed: UInt64

    /// `seed` decides the odd pieces. Without `metadata` only names, types and contents are compared.
    package init(original: String, seed: UInt64, ways: [Way] = Way.allCases, metadata: Bool = true) {
        self.original = BytePath(original)
        self.seed = seed
        self.ways = ways
        self.metadata = metadata
    }

    /// Compares everything. Throws the first `Difference`; a failing call on either side is one too.
    @discardableResult
    package func compare(with mount: String) throws(Difference) -> Report {
        var walk = Walk(reader: self, random: SeededGenerator(seed: seed))
        try walk.directory(original, BytePath(mount), ".")
        return walk.report
    }

    /// One comparison under way.
    private struct Walk {
        let reader: GoldenReader
        var random: SeededGenerator
        var report = Report()
        /// Inode of the original with more than one link → inode of the mount.
        var linked: [UInt64: UInt64] = [:]

        /// Makes a failed call on either side a difference.
        func attempt<Value>(
            _ path: String, _ side: String, _ body: () throws(SystemError) -> Value
        ) throws(Difference) -> Value {
            do throws(SystemError) { return try body() } catch {
                throw Difference(path: path, what: side, expected: "success", found: "\(error)")
            }
        }

        func expect<Value: Equatable>(
            _ path: String, _ what: String, _ expected: Value, _ found: Value, _ show: (Value) -> String = { "\($0)" }
        ) throws(Difference) {
            if expected != found {
                throw Difference(path: path, what: what, expected: show(expected), found: show(found))
            }
        }

        mutating func directory(_ a: BytePath, _ b: BytePath, _ shown: String) throws(Difference) {
            report.directories += 1
            let expected = try attempt(shown, "original") { () throws(SystemError) in try a.entries() }
            let found = try attempt(shown, "mount") { () throws(SystemError) in try b.entries() }
            try expect(shown, "entries", expected, found) { names in
                "\(names.count): " + names.map { BytePath($0).description }.joined(separator: " ")
            }
            try compareMetadata(a, b, shown)
            for name in expected {
                try entry(a.appending(name), b.appending(name), shown + "/" + BytePath(name).description)
            }
        }

        mutating func entry(_ a: BytePath, _ b: BytePath, _ shown: String) throws(Difference) {
            let expected = try attempt(shown, "original") { () throws(SystemError) in try a.status() }
            let found = try attempt(shown, "mount") { () throws(SystemError) in try b.status() }
            try expect(shown, "type", expected.st_mode & S_IFMT, found.st_mode & S_IFMT) { String($0, radix: 8) }
            switch expected.st_mode & S_IFMT {
            case S_IFDIR:
                try directory(a, b, shown)
                return
            case S_IFREG:
                try regular(a, b, shown, size: UInt64(expected.st_size))
            case S_IFLNK:
                report.others += 1
                let target = try attempt(shown, "original") { () throws(SystemError) in try a.readLink() }
                let other = try attempt(shown, "mount") { () throws(SystemError) in try b.readLink() }
                try expect(shown, "link target", BytePath(target), BytePath(other))
            default:
                report.others += 1
                try expect(shown, "device", expected.st_rdev, found.st_rdev)
            }
            try compareMetadata(a, b, shown)
        }

        mutating func compareMetadata(_ a: BytePath, _ b: BytePath, _ shown: String) throws(Difference) {
            guard reader.metadata else { return }
            let expected = try attempt(shown, "original") { () throws(SystemError) in try a.status() }
            let found = try attempt(shown, "mount") { () throws(SystemError) in try b.status() }
            try expect(shown, "mode", expected.st_mode, found.st_mode) { String($0, radix: 8) }
            try expect(shown, "owner", expected.st_uid, found.st_uid)
            try expect(shown, "group", expected.st_gid, found.st_gid)
            try expect(shown, "seconds of mtime", expected.st_mtim.tv_sec, found.st_mtim.tv_sec)
            try expect(shown, "nanoseconds of mtime", expected.st_mtim.tv_nsec, found.st_mtim.tv_nsec)
            // File systems count a directory's size and links each in their own way.
            if expected.st_mode & S_IFMT != S_IFDIR {
                try expect(shown, "size", expected.st_size, found.st_size)
                try expect(shown, "links", expected.st_nlink, found.st_nlink)
                if expected.st_nlink > 1 {
                    let other = linked[UInt64(expected.st_ino)] ?? UInt64(found.st_ino)
                    try expect(shown, "inode of its hard links", other, UInt64(found.st_ino))
                    linked[UInt64(expected.st_ino)] = other
                }
            }
            let attributes = try attempt(shown, "original") { () throws(SystemError) in try ExtendedAttributes.all(a) }
            let others = try attempt(shown, "mount") { () throws(SystemError) in try ExtendedAttributes.all(b) }
            try expect(shown, "attribute names", attributes.map(\.name), others.map(\.name))
            for (one, other) in zip(attributes, others) {
                try expect(shown, "attribute \(one.name)", one.value, other.value)
            }
        }

        mutating func regular(_ a: BytePath, _ b: BytePath, _ shown: String, size: UInt64) throws(Difference) {
            report.files += 1
            report.bytes += size
            let first = try attempt(shown, "original") { () throws(SystemError) in try a.open(O_RDONLY) }
            let second = try attempt(shown, "mount") { () throws(SystemError) in try b.open(O_RDONLY) }
            let ways = reader.ways.shuffled(using: &random)
            for way in ways {
                var failure: ContentFailure?
                switch way {
                case .oddPieces: failure = Contents.compareOddPieces(first, second, size: size, using: &random)
                case .whole: failure = Contents.compareWhole(first, second, size: size)
                case .mapped: failure = Contents.compareMapped(first, second, size: size)
                }
                if let failure {
                    throw Difference(
                        path: shown, what: "\(way) read, \(failure.place)", expected: failure.expected,
                        found: failure.found)
                }
            }
        }
    }
}
