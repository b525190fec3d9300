import Glibc
import LinuxSystem

/// Makes trees that hold what images hold and what breaks image formats: odd names, sparse files, hard links, extended
/// attributes, every file size around a block and around a chunk, links, pipes, devices. The same seed makes the same
/// tree. Device nodes, owners and `security.*` attributes need root.
package struct SampleTree {
    package struct Options: Sendable {
        package var seed: UInt64
        /// Small files in one directory (each 0 to 12,000 bytes).
        package var smallFiles = 300
        /// Bytes of one large file that does not compress and one that does.
        package var largeFileSize = 6 << 20
        /// Pipes and device nodes.
        package var specialFiles = true
        /// Sockets, which a tar archive cannot carry.
        package var sockets = false

        package init(seed: UInt64) { self.seed = seed }
    }

    /// Sizes at which an off-by-one shows: around the 4 KiB block, readahead's 128 KiB, and 512 KiB, 1 MiB and 4 MiB,
    /// which are the usual and the largest chunk sizes.
    package static let edgeSizes: [Int] = {
        let blocks = [1, 2, 16, 32, 128, 256, 1024]
        return [0, 1, 2]
            + blocks.flatMap { (count: Int) -> [Int] in [count * 4096 - 1, count * 4096, count * 4096 + 1] }
    }()

    /// A statically linked program present in every tree at `bin/busybox`, to be executed from the mount.
    package static let program = "/bin/busybox"

    private let root: BytePath
    private let options: Options
    private var random: SeededGenerator

    /// Makes the tree in the directory `root`, which must exist and be empty.
    package static func make(at root: String, _ options: Options) throws {
        var tree = SampleTree(root: BytePath(root), options: options, random: SeededGenerator(seed: options.seed))
        try tree.makeSizes()
        try tree.makeNames()
        try tree.makeHoles()
        try tree.makeLinks()
        try tree.makeAttributes()
        try tree.makeModes()
        try tree.makeSmallFiles()
        try tree.makeProgram()
        if options.specialFiles { try tree.makeSpecialFiles() }
    }

    private func directory(_ name: String) throws -> BytePath {
        let path = root.appending(name)
        try Self.makeDirectory(path)
        return path
    }

    private static func makeDirectory(_ path: BytePath, mode: mode_t = 0o755) throws {
        try path.calling("mkdir") { mkdir($0, mode) }
    }

    private static func write(_ bytes: [UInt8], to path: BytePath, mode: mode_t = 0o644) throws {
        let file = try path.open(O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
        try bytes.withUnsafeBytes { raw in try file.writeAll(raw, at: 0) }
    }
}

// MARK: - Parts

extension SampleTree {
    private mutating func makeSizes() throws {
        let sizes = try directory("sizes")
        for size in Self.edgeSizes { try Self.write(random.bytes(size), to: sizes.appending("\(size)")) }
        try Self.write(random.bytes(options.largeFileSize), to: sizes.appending("large-random"))
        try Self.write(random.compressibleBytes(options.largeFileSize), to: sizes.appending("large-text"))
        // The same content twice, at different offsets of the blob: chunks that occur more than once.
        let repeated = random.bytes(2 << 20)
        for name in ["same-1", "same-2"] { try Self.write(repeated, to: sizes.appending(name)) }
    }

    private mutating func makeNames() throws {
        let names = try directory("names")
        // Not 255 bytes: mkfs.erofs 1.5 cannot store those.
        let longest = [UInt8](repeating: UInt8(ascii: "n"), count: 254)
        let odd: [[UInt8]] = [
            Array("with space".utf8), Array("new\nline".utf8), Array("tab\tand\u{1}control".utf8),
            Array("back\\slash".utf8), Array("quote'\"`$(x)".utf8), Array("-leading-dash".utf8),
            Array("...".utf8), Array("ünïcödé-名前-🙂".utf8), [0xFF, 0xFE, 0x80], Array("ends with space ".utf8),
            Array("*?[a]".utf8), Array("colon:comma,equals=".utf8), longest,
            Array("case".utf8), Array("CASE".utf8), Array(".wh".utf8),
        ]
        for name in odd {
            let size = Int.random(in: 1...9000, using: &random)
            try Self.write(random.bytes(size), to: names.appending(name))
        }
        var deep = names.appending("deep")
        try Self.makeDirectory(deep)
        for level in 0..<40 {
            deep = deep.appending("level-\(level)")
            try Self.makeDirectory(deep)
        }
        try Self.write(random.bytes(5000), to: deep.appending("bottom"))
        try Self.makeDirectory(names.appending("empty directory"))
    }

    private mutating func makeHoles() throws {
        let holes = try directory("holes")
        let mebibyte = 1 << 20
        // (name, size, offsets of written 5,000-byte pieces)
        let shapes: [(String, Int, [Int])] = [
            ("all", 8 * mebibyte, []), ("start", 3 * mebibyte, [3 * mebibyte - 5000]), ("end", 3 * mebibyte, [0]),
            ("middle", 5 * mebibyte + 1, [0, 5 * mebibyte - 4999]), ("tiny", 4097, []),
            ("comb", 2 * mebibyte, stride(from: 0, to: 2 * mebibyte - 5000, by: 65536).map { $0 }),
        ]
        for (name, size, offsets) in shapes {
            let file = try holes.appending(name).open(O_WRONLY | O_CREAT | O_TRUNC)
            try file.truncate(to: UInt64(size))
            for offset in offsets {
                try random.bytes(5000).withUnsafeBytes { raw in
                    try file.writeAll(raw, at: UInt64(offset))
                }
            }
        }
    }

    private mutating func makeLinks() throws {
        let links = try directory("links")
        let (first, other) = (links.appending("first"), links.appending("other"))
        try Self.makeDirectory(other)
        try Self.write(random.bytes(20_000), to: first)
        for second in [links.appending("second"), other.appending("third")] {
            try first.calling("link to \(second)") { from in second.withCString { link(from, $0) } }
        }
        let targets: [(String, [UInt8])] = [
            ("relative", Array("first".utf8)), ("up", Array("../sizes/4096".utf8)),
            ("absolute", Array("/etc/passwd".utf8)), ("dangling", Array("no/such/file".utf8)),
            ("itself", Array("itself".utf8)),
            ("long", [UInt8](repeating: UInt8(ascii: "x"), count: 1000)), ("bytes", [0xC3, 0x28, 0x0A]),
        ]
        for (name, target) in targets {
            let content = BytePath(target)
            try links.appending(name).calling("symlink") { at in content.withCString { symlink($0, at) } }
        }
    }

    private mutating func makeAttributes() throws {
        let attributes = try directory("attributes")
        for name in ["small", "large", "many", "capable"] {
            try Self.write(random.bytes(6000), to: attributes.appending(name))
        }
        try ExtendedAttributes.set(attributes.appending("small"), "user.name", Array("value".utf8))
        try ExtendedAttributes.set(attributes.appending("small"), "user.empty", [])
        try ExtendedAttributes.set(attributes.appending("large"), "user.large", random.bytes(3000))
        for number in 0..<20 {
            try ExtendedAttributes.set(attributes.appending("many"), "user.number.\(number)", random.bytes(number + 1))
        }
        // capability(7), VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective.
        let capability: [UInt8] = [1, 0, 0, 2, 0, 4, 0, 0] + [UInt8](repeating: 0, count: 12)
        try ExtendedAttributes.set(attributes.appending("capable"), "security.capability", capability)
        try ExtendedAttributes.set(attributes, "user.on.directory", Array("yes".utf8))
    }

    private mutating func makeModes() throws {
        let modes = try directory("modes")
        let cases: [(String, mode_t, uid_t, gid_t)] = [
            ("none", 0o000, 0, 0), ("setuid", 0o4755, 0, 0), ("setgid", 0o2755, 0, 50), ("all", 0o7777, 1, 1),
            ("owned", 0o640, 12345, 54321), ("high", 0o600, 4_000_000_000, 4_000_000_001),
        ]
        for (name, mode, user, group) in cases {
            let path = modes.appending(name)
            try Self.write(random.bytes(100), to: path)
            try path.calling("lchown") { lchown($0, user, group) }
            try path.calling("chmod") { chmod($0, mode) }
            // A date before the epoch's first second is what archives of long ago hold; nanoseconds must survive.
            var times = [timespec(tv_sec: 1, tv_nsec: 0), timespec(tv_sec: 1_000_000_007, tv_nsec: 123_456_789)]
            try path.calling("utimensat") { utimensat(AT_FDCWD, $0, &times, AT_SYMLINK_NOFOLLOW) }
        }
        let sticky = modes.appending("sticky")
        try Self.makeDirectory(sticky)
        try sticky.calling("chmod") { chmod($0, 0o1777) }
    }

    private mutating func makeSmallFiles() throws {
        let many = try directory("many")
        for number in 0..<options.smallFiles {
            let bytes = random.compressibleBytes(Int.random(in: 0...12_000, using: &random))
            try Self.write(bytes, to: many.appending("file-\(number)"))
        }
    }

    private func makeProgram() throws {
        let directory = try directory("bin")
        let file = try File(path: Self.program, flags: O_RDONLY)
        try Self.write(try file.contents(limit: 16 << 20), to: directory.appending("busybox"), mode: 0o755)
        try directory.appending("sh").calling("symlink") { symlink("busybox", $0) }
    }

    private func makeSpecialFiles() throws {
        let special = try directory("special")
        try special.appending("pipe").calling("mkfifo") { mkfifo($0, 0o620) }
        let nodes: [(String, mode_t, dev_t)] = [
            ("character", S_IFCHR | 0o666, 0x103), ("block", S_IFBLK | 0o660, 0x7C8),
            // Major 4,095 and minor 1,048,575: all the bits a device number has (makedev(3), new encoding).
            ("widest", S_IFCHR | 0o600, 0xFFFF_FFFF),
        ]
        for (name, mode, device) in nodes {
            try special.appending(name).calling("mknod") { mknod($0, mode, device) }
        }
        if options.sockets { try special.appending("socket").calling("mknod") { mknod($0, S_IFSOCK | 0o600, 0) } }
    }
}
