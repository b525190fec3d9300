internal import ChunkModel

/// Checks a hostile bootstrap before the kernel sees it: everything that can be reached from the root lies where it may.
///
/// The kernel trusts an image more than it should: what lies outside a device reads as zeros, tables may be shared until a
/// walk never ends, names may hold what no file system makes. So chunkgate mounts nothing that this has not passed.
/// Accepted is what mkfs.erofs makes without compression: flat metadata in the bootstrap, file data flat in the
/// bootstrap or in chunks on the extra devices. Format: Linux `fs/erofs/erofs_fs.h` and its readers `super.c`,
/// `inode.c`, `dir.c`, `xattr.c`, `data.c`.
///
/// Iterative; memory is one bit for 32 bytes of image plus the directories not visited yet. The bytes must not change
/// while it runs. Use a value on one thread.
package struct BootstrapValidator {
    /// Directories nested: a path of one-letter names of PATH_MAX (4096) bytes.
    package static let maxDepth = 2048
    /// Bytes of a symlink's target (PATH_MAX less its NUL).
    package static let maxSymlinkSize: UInt64 = 4095
    /// Bytes of a name (`EROFS_NAME_LEN`).
    package static let maxNameSize = 255
    /// Metadata is read at most this often in all: mkfs.erofs shares no tables between inodes, a walk reads each byte
    /// about once. More means tables that overlap, and work without bound.
    static let maxReadsPerByte: UInt64 = 4

    struct PendingDirectory {
        let nid: UInt64
        let parent: UInt64
        let depth: Int
    }

    let bytes: ImageBytes
    let superblock: Superblock
    /// Raw size of each extra device in bytes; device ids count from 1.
    let devices: [UInt64]
    /// Inode numbers below this have at least their first 32 bytes inside.
    let nidLimit: UInt64
    var budget: UInt64
    var summary = BootstrapSummary()
    var pending: [PendingDirectory] = []
    var visited: [UInt64]
    /// Where inodes with more than one xattr keep them, when asked for: (offset, size), for `BootstrapFinisher`.
    var xattrAreas: [(offset: UInt64, size: UInt64)]?
    /// Where files' data lies on the devices, when asked for.
    var dataRuns: [DataRun]?

    /// Walks the whole image; throws at the first thing that is not right.
    ///
    /// - Parameters:
    ///   - image: the bootstrap, whole.
    ///   - devices: raw size in bytes of each blob, in device order: what the chunk indexes say.
    @discardableResult
    package static func validate(
        _ image: UnsafeRawBufferPointer, devices: [UInt64]
    ) throws(ErofsError) -> BootstrapSummary {
        var walk = try BootstrapValidator(image, devices: devices)
        try walk.run()
        return walk.summary
    }

    /// The same, and where the data of files lies: in order of the walk, one run at least for each file with chunks, more for
    /// one that is not in one piece. Runs overlap where files share data.
    package static func survey(
        _ image: UnsafeRawBufferPointer, devices: [UInt64]
    ) throws(ErofsError) -> (summary: BootstrapSummary, runs: [DataRun]) {
        var walk = try BootstrapValidator(image, devices: devices)
        walk.dataRuns = []
        try walk.run()
        return (walk.summary, walk.dataRuns ?? [])
    }

    init(_ image: UnsafeRawBufferPointer, devices: [UInt64]) throws(ErofsError) {
        guard image.count <= Limits.maxBootstrapSize else {
            throw ErofsError(.limitExceeded, "image", "\(image.count) bytes, limit \(Limits.maxBootstrapSize)")
        }
        superblock = try Superblock(image: image)
        bytes = ImageBytes(image)
        self.devices = devices
        guard bytes.count % UInt64(Limits.blockSize) == 0 else {
            throw ErofsError(.outsideImage, "image", "\(bytes.count) bytes, expected whole blocks of 4096")
        }
        let metadata = superblock.metadataOffset
        nidLimit = metadata < bytes.count ? (bytes.count - metadata) / Inode.slotSize : 0
        budget = bytes.count * Self.maxReadsPerByte
        visited = [UInt64](repeating: 0, count: Int(nidLimit / 64 + 1))
    }

    mutating func run() throws(ErofsError) {
        try checkSuperblock()
        try checkDevices()
        let root = UInt64(superblock.rootNid)
        let inode = try visit(root, expected: .directory, place: "superblock")
        guard inode != nil else { throw ErofsError(.badDirectory, "superblock", "root is visited twice") }
        pending.append(PendingDirectory(nid: root, parent: root, depth: 1))
        while let directory = pending.popLast() { try walk(directory) }
    }

    // MARK: superblock and devices

    private func checkSuperblock() throws(ErofsError) {
        func refuse(_ what: String) -> ErofsError { ErofsError(.unsupported, "superblock", what) }
        guard superblock.blockSizeBits == 12 else {
            throw refuse("block size bits \(superblock.blockSizeBits), expected 12")
        }
        let incompatible = superblock.featureIncompat & ~Superblock.Incompatible.accepted
        guard incompatible == 0 else {
            throw refuse("incompatible features 0x\(String(incompatible, radix: 16)) are not accepted")
        }
        let compatible = superblock.featureCompat & ~Superblock.Compatible.accepted
        guard compatible == 0 else {
            throw refuse("compatible features 0x\(String(compatible, radix: 16)) are not accepted")
        }
        guard superblock.compression == 0, superblock.directoryBlockBits == 0, superblock.xattrPrefixCount == 0,
            superblock.packedNid == 0
        else { throw refuse("compression, directory blocks, xattr prefixes and packed inode must be 0") }
        let size = Superblock.size + UInt64(superblock.extensionSlots) * 16
        guard Superblock.offset + size <= UInt64(Limits.blockSize) else {
            throw refuse("superblock of \(size) bytes does not fit the first block")
        }
        guard superblock.featureCompat & Superblock.Compatible.checksum != 0 else { return }
        let expected = try Superblock.expectedChecksum(bytes)
        guard superblock.checksum == expected else {
            throw ErofsError(
                .badChecksum, "superblock",
                "expected 0x\(String(expected, radix: 16)), found 0x\(String(superblock.checksum, radix: 16))")
        }
    }

    private func checkDevices() throws(ErofsError) {
        let hasTable = superblock.featureIncompat & Superblock.Incompatible.deviceTable != 0
        let found = hasTable ? Int(superblock.extraDevices) : 0
        guard found == devices.count else {
            throw ErofsError(.badDevices, "superblock", "names \(found) devices, expected \(devices.count)")
        }
        guard found <= Limits.maxBlobsPerImage else {
            throw ErofsError(.limitExceeded, "superblock", "\(found) devices, limit \(Limits.maxBlobsPerImage)")
        }
        for number in 0..<found {
            let place = "device \(number + 1)"
            let slot = try DeviceSlot(bytes, at: superblock.deviceTableOffset + UInt64(number) * DeviceSlot.size, place)
            // A unified address would let a primary address, checked against the bootstrap, end up on a device.
            let unified = UInt64(slot.unifiedAddress) * UInt64(Limits.blockSize)
            guard unified == 0 || unified >= bytes.count else {
                throw ErofsError(
                    .badDevices, place, "unified block \(slot.unifiedAddress) lies inside the bootstrap")
            }
        }
    }

    // MARK: inodes

    /// Takes `count` bytes off what may be read in all.
    @inline(__always)
    mutating func charge(_ count: UInt64, _ place: @autoclosure () -> String) throws(ErofsError) {
        guard count <= budget else {
            throw ErofsError(
                .limitExceeded, place(),
                "more than \(Self.maxReadsPerByte) × \(bytes.count) bytes of metadata: tables overlap")
        }
        budget -= count
    }

    /// Checks an inode once. Returns nil when it was checked before: then only the type is compared.
    mutating func visit(
        _ nid: UInt64, expected: FileType, place: @autoclosure () -> String
    ) throws(ErofsError) -> Inode? {
        guard nid < nidLimit else {
            throw ErofsError(.outsideImage, place(), "inode number \(nid), limit \(nidLimit)")
        }
        try charge(Inode.slotSize, place())
        let inode = try Inode(bytes, nid: nid, at: superblock.metadataOffset + nid * Inode.slotSize)
        guard inode.type == expected else {
            throw ErofsError(.badInode, place(), "inode \(nid) is a \(inode.type), expected a \(expected)")
        }
        let word = Int(nid / 64)
        let bit = UInt64(1) << (nid % 64)
        guard visited[word] & bit == 0 else { return nil }
        visited[word] |= bit
        try check(inode)
        return inode
    }

    private mutating func check(_ inode: Inode) throws(ErofsError) {
        if inode.xattrSize > 0 { try checkXattrs(inode) }
        switch inode.type {
        case .regular:
            summary.regularFiles += 1
            summary.fileBytes &+= inode.size
            try checkFileData(inode)
        case .directory:
            summary.directories += 1
            try checkFlatData(inode)
        case .symlink:
            summary.symlinks += 1
            try checkSymlink(inode)
        case .characterDevice, .blockDevice, .fifo, .socket:
            summary.specialFiles += 1
            guard inode.layout != .chunkBased else {
                throw ErofsError(.badInode, inode.place, "a \(inode.type) with chunks")
            }
        }
    }

    private mutating func checkSymlink(_ inode: Inode) throws(ErofsError) {
        guard (1...Self.maxSymlinkSize).contains(inode.size) else {
            throw ErofsError(.badSymlink, inode.place, "target of \(inode.size) bytes, limit \(Self.maxSymlinkSize)")
        }
        try checkFlatData(inode)
        try charge(inode.size, inode.place)
        let target = try bytes.slice(at: flatOffset(inode, block: 0), count: inode.size, inode.place)
        guard !target.contains(0) else { throw ErofsError(.badSymlink, inode.place, "target holds a NUL") }
    }
}
