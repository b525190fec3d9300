internal import ChunkModel

// Directory blocks: an array of entries, then their names (`struct erofs_dirent`, `dir.c`, `namei.c`).
extension BootstrapValidator {
    private static let blockSize = UInt64(Limits.blockSize)
    private static let entrySize: UInt64 = 12

    /// What has been seen of one directory so far.
    private struct Progress {
        let directory: PendingDirectory
        var hasSelf = false
        var hasParent = false
        /// Entries seen, for messages.
        var entries = 0
        /// The name before, for the order the kernel's binary search relies on; it lies in the image.
        var previous = UnsafeRawBufferPointer(start: nil, count: 0)

        var place: String { "inode \(directory.nid), dirent \(entries)" }
    }

    /// Checks all entries of a directory and every inode they name; queues the directories among them.
    mutating func walk(_ directory: PendingDirectory) throws(ErofsError) {
        let inode = try Inode(
            bytes, nid: directory.nid, at: superblock.metadataOffset + directory.nid * Inode.slotSize)
        try charge(inode.size, inode.place)
        var progress = Progress(directory: directory)
        var offset: UInt64 = 0
        while offset < inode.size {
            let count = min(Self.blockSize, inode.size - offset)
            let start = flatOffset(inode, block: offset / Self.blockSize)
            try walk(block: ImageBytes(try bytes.slice(at: start, count: count, inode.place)), &progress)
            offset += count
        }
        guard progress.hasSelf, progress.hasParent else {
            throw ErofsError(.badDirectory, inode.place, "expected entries '.' and '..'")
        }
    }

    private mutating func walk(block: ImageBytes, _ progress: inout Progress) throws(ErofsError) {
        let first: UInt16 = try block.integer(at: 8, progress.place)
        // The first name follows the last entry, so its offset says how many entries there are.
        guard first >= 12, UInt64(first) % Self.entrySize == 0, UInt64(first) < block.count else {
            throw ErofsError(
                .badDirectory, progress.place, "names start at \(first) in a block of \(block.count) bytes")
        }
        let count = UInt64(first) / Self.entrySize
        for number in 0..<count {
            let at = number * Self.entrySize
            let nid: UInt64 = try block.integer(at: at, progress.place)
            let start: UInt16 = try block.integer(at: at + 8, progress.place)
            let type: UInt8 = try block.integer(at: at + 10, progress.place)
            let end: UInt64
            if number + 1 < count {
                end = UInt64(try block.integer(at: at + Self.entrySize + 8, as: UInt16.self, progress.place))
            } else {
                end = block.count
            }
            guard start >= first, UInt64(start) < end, end <= block.count else {
                throw ErofsError(
                    .badDirectory, progress.place, "name from \(start) to \(end) in a block of \(block.count) bytes")
            }
            var name = try block.slice(at: UInt64(start), count: end - UInt64(start), progress.place)
            if number + 1 == count { name = Self.untilNul(name) }
            try take(name, nid: nid, type: type, &progress)
            progress.entries += 1
        }
    }

    /// The last name of a block ends at the first NUL or with the block.
    private static func untilNul(_ name: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let end = name.firstIndex(of: 0) else { return name }
        return UnsafeRawBufferPointer(rebasing: name[..<end])
    }

    private mutating func take(
        _ name: UnsafeRawBufferPointer, nid: UInt64, type raw: UInt8, _ progress: inout Progress
    ) throws(ErofsError) {
        guard (1...Self.maxNameSize).contains(name.count) else {
            throw ErofsError(.badName, progress.place, "\(name.count) bytes, expected 1 to \(Self.maxNameSize)")
        }
        for byte in name where byte == 0 || byte == UInt8(ascii: "/") {
            throw ErofsError(.badName, progress.place, "holds byte \(byte)")
        }
        guard progress.previous.count == 0 || Self.precedes(progress.previous, name) else {
            throw ErofsError(.badDirectory, progress.place, "names are not in ascending order without repetition")
        }
        progress.previous = name
        guard let type = FileType(rawValue: raw) else {
            throw ErofsError(.badDirectory, progress.place, "file type \(raw)")
        }
        if name[0] == UInt8(ascii: "."), name.count == 1 {
            try checkLink(nid, type, is: progress.directory.nid, "'.'", progress)
            progress.hasSelf = true
            return
        }
        if name[0] == UInt8(ascii: "."), name.count == 2, name[1] == UInt8(ascii: ".") {
            try checkLink(nid, type, is: progress.directory.parent, "'..'", progress)
            progress.hasParent = true
            return
        }
        summary.names += 1
        let isNew = try visit(nid, expected: type, place: progress.place) != nil
        guard type == .directory else { return }
        guard isNew else {
            throw ErofsError(.badDirectory, progress.place, "directory \(nid) has a second name")
        }
        let depth = progress.directory.depth + 1
        guard depth <= Self.maxDepth else {
            throw ErofsError(.limitExceeded, progress.place, "more than \(Self.maxDepth) directories deep")
        }
        pending.append(PendingDirectory(nid: nid, parent: progress.directory.nid, depth: depth))
    }

    private func checkLink(
        _ nid: UInt64, _ type: FileType, is expected: UInt64, _ name: String, _ progress: Progress
    ) throws(ErofsError) {
        guard nid == expected, type == .directory else {
            throw ErofsError(.badDirectory, progress.place, "\(name) is inode \(nid), expected directory \(expected)")
        }
    }

    /// Byte order, the shorter of two equal beginnings first (`erofs_dirnamecmp`).
    private static func precedes(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        for index in 0..<min(a.count, b.count) where a[index] != b[index] { return a[index] < b[index] }
        return a.count < b.count
    }
}
