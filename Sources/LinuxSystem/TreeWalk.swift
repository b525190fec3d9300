import CLinux
import Glibc

/// A name in a directory, as the bytes it is made of, with the zero C wants at its end.
package typealias EntryName = [CChar]

/// What a walk through a tree is for.
package protocol TreeVisitor {
    /// An entry of the directory behind `directory`, which lies `depth` directories below the root. True: walk into it.
    mutating func visit(_ name: EntryName, isDirectory: Bool, in directory: Int32, depth: Int) -> Bool
    /// A directory that was walked into has no further entries.
    mutating func leave(_ name: EntryName, in directory: Int32)
    /// A directory could not be opened or read; the walk goes on beside it.
    mutating func failed(_ error: SystemError)
}

/// Walks trees that somebody else wrote, and may be changing: from directory to directory by descriptors, never through
/// a link or into a mount, without recursion.
package enum TreeWalk {
    /// Directories open at once. Those above are opened again on the way back, and must be the ones they were.
    package static let maxOpen = 32

    private struct Level {
        var stream: DirectoryStream?
        /// Where to go on when it is opened again.
        var position = 0
        let identity: FileIdentity
        let name: EntryName

        init(owning descriptor: Int32, name: EntryName) throws(SystemError) {
            let stream = try DirectoryStream(owning: descriptor)
            identity = try FileIdentity(descriptor: stream.descriptor)
            self.stream = stream
            self.name = name
        }
    }

    /// Walks through everything below `root`. Throws when the way back up is lost: the tree was moved meanwhile.
    package static func walk(_ root: File, _ visitor: inout some TreeVisitor) throws(SystemError) {
        var levels = [try child(of: root.descriptor, Array(".".utf8CString))]
        while let top = levels.last, let stream = top.stream {
            guard let (name, isDirectory) = next(stream, &visitor) else {
                levels.removeLast()
                guard let above = levels.last else { return }
                if above.stream == nil { try reopen(&levels[levels.count - 1], above: stream) }
                if let parent = levels.last?.stream { visitor.leave(top.name, in: parent.descriptor) }
                continue
            }
            let depth = levels.count - 1
            guard visitor.visit(name, isDirectory: isDirectory, in: stream.descriptor, depth: depth) else { continue }
            do throws(SystemError) { levels.append(try child(of: stream.descriptor, name)) } catch {
                visitor.failed(error)
            }
            if levels.count > maxOpen, let old = levels[levels.count - 1 - maxOpen].stream {
                levels[levels.count - 1 - maxOpen].position = old.position
                levels[levels.count - 1 - maxOpen].stream = nil
            }
        }
    }

    private static func child(of directory: Int32, _ name: EntryName) throws(SystemError) -> Level {
        try Level(owning: try retrying("openat2", "directory") { clinux_open_child(directory, name) }, name: name)
    }

    /// A directory that cannot be read on is at its end.
    private static func next(
        _ stream: DirectoryStream, _ visitor: inout some TreeVisitor
    ) -> (name: EntryName, isDirectory: Bool)? {
        do throws(SystemError) { return try stream.next() } catch {
            visitor.failed(error)
            return nil
        }
    }

    private static func reopen(_ level: inout Level, above stream: DirectoryStream) throws(SystemError) {
        let descriptor = try retrying("openat", "..") { clinux_open_parent(stream.descriptor) }
        let parent = try DirectoryStream(owning: descriptor)
        guard try FileIdentity(descriptor: parent.descriptor) == level.identity else {
            throw SystemError(ESTALE, "openat", "..: the tree was moved while it was walked")
        }
        parent.position = level.position
        level.stream = parent
    }
}

/// Entries of a directory, one at a time: readdir(3). Holds 32 KiB and a descriptor.
package final class DirectoryStream {
    private let stream: OpaquePointer

    /// Takes ownership of a descriptor.
    package init(owning descriptor: Int32) throws(SystemError) {
        guard let stream = fdopendir(descriptor) else {
            let code = errno
            close(descriptor)
            throw SystemError(code, "fdopendir")
        }
        self.stream = stream
    }

    /// Lists an open directory from its beginning, with a descriptor of its own.
    package convenience init(_ directory: File) throws(SystemError) {
        let name = Array(".".utf8CString)
        try self.init(owning: try retrying("openat2", ".") { clinux_open_child(directory.descriptor, name) })
    }

    deinit { closedir(stream) }

    /// A name for people, or one that is known to be text.
    package static func text(_ name: EntryName) -> String {
        String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The directory's descriptor; valid as long as this object lives.
    package var descriptor: Int32 { dirfd(stream) }

    /// Where `next` goes on; telldir(3).
    package var position: Int {
        get { telldir(stream) }
        set { seekdir(stream, newValue) }
    }

    /// The next entry but `.` and `..`; nil at the end. `isDirectory` is false where the file system does not say.
    package func next() throws(SystemError) -> (name: EntryName, isDirectory: Bool)? {
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw SystemError(errno, "readdir") }
                return nil
            }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                raw.prefix { $0 != 0 }.map { CChar(bitPattern: $0) } + [0]
            }
            let dot = CChar(UInt8(ascii: "."))
            if name == [dot, 0] || name == [dot, dot, 0] { continue }
            return (name, entry.pointee.d_type == UInt8(DT_DIR))
        }
    }
}
