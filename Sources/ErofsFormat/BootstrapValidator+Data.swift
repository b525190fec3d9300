internal import ChunkModel

// Where the content of inodes lies.
extension BootstrapValidator {
    private static let blockSize = UInt64(Limits.blockSize)
    /// Chunk format bits: block count of a chunk as a power of two, and 8-byte entries with a device.
    private static let chunkBitsMask: UInt32 = 0x1F
    private static let chunkIndexesFlag: UInt32 = 0x20
    /// A chunk without data.
    private static let hole = UInt32.max

    /// Byte offset of logical block `block` of a flat inode that `checkFlatData` has passed.
    func flatOffset(_ inode: Inode, block: UInt64) -> UInt64 {
        let blocks = (inode.size + Self.blockSize - 1) / Self.blockSize
        if inode.layout == .flatInline, block + 1 == blocks { return inode.bodyOffset }
        return (UInt64(inode.union) + block) * Self.blockSize
    }

    /// A regular file: flat in the bootstrap, or in chunks.
    mutating func checkFileData(_ inode: Inode) throws(ErofsError) {
        if inode.layout == .chunkBased { try checkChunks(inode) } else { try checkFlatData(inode) }
    }

    /// Flat data lies in the bootstrap, its inline tail in the block that holds the end of the inode (`data.c`).
    func checkFlatData(_ inode: Inode) throws(ErofsError) {
        guard inode.layout != .chunkBased else {
            throw ErofsError(.unsupported, inode.place, "a \(inode.type) in chunks: metadata must be in the bootstrap")
        }
        guard inode.size > 0 else { return }
        let blocks = (inode.size - 1) / Self.blockSize + 1
        var whole = blocks
        if inode.layout == .flatInline {
            whole -= 1
            let tail = inode.size - whole * Self.blockSize
            guard inode.bodyOffset % Self.blockSize + tail <= Self.blockSize else {
                throw ErofsError(.badInode, inode.place, "inline tail of \(tail) bytes crosses a block boundary")
            }
            guard bytes.contains(inode.bodyOffset, tail) else {
                throw ErofsError(
                    .outsideImage, inode.place, "inline tail at \(inode.bodyOffset), the image has \(bytes.count) bytes"
                )
            }
        }
        let limit = bytes.count / Self.blockSize
        guard whole == 0 || whole <= limit && UInt64(inode.union) <= limit - whole else {
            throw ErofsError(
                .outsideImage, inode.place,
                "\(whole) blocks from block \(inode.union), the image has \(limit) blocks")
        }
    }

    /// Every chunk of a chunk-based file is a hole or lies inside its device.
    private mutating func checkChunks(_ inode: Inode) throws(ErofsError) {
        let format = inode.union
        guard format & ~(Self.chunkBitsMask | Self.chunkIndexesFlag) == 0 else {
            throw ErofsError(.unsupported, inode.place, "chunk format 0x\(String(format, radix: 16))")
        }
        guard superblock.featureIncompat & Superblock.Incompatible.chunkedFile != 0 else {
            throw ErofsError(.badInode, inode.place, "chunk-based file without the superblock's feature")
        }
        guard inode.size > 0 else { return }
        let hasIndexes = format & Self.chunkIndexesFlag != 0
        let unit: UInt64 = hasIndexes ? 8 : 4
        let bits = 12 + UInt64(format & Self.chunkBitsMask)
        let count = ((inode.size - 1) >> bits) + 1
        let table = (inode.bodyOffset + unit - 1) / unit * unit
        guard count <= bytes.count / unit, bytes.contains(table, count * unit) else {
            throw ErofsError(
                .outsideImage, inode.place, "table of \(count) chunks at \(table), the image has \(bytes.count) bytes")
        }
        try charge(count * unit, inode.place)
        summary.extents += Int(count)
        var run: DataRun?
        for number in 0..<count {
            let at = table + number * unit
            let block: UInt32 = try bytes.integer(at: hasIndexes ? at + 4 : at, inode.place)
            if block == Self.hole { continue }
            let device: UInt16 = hasIndexes ? try bytes.integer(at: at + 2, inode.place) : 0
            let used = min(inode.size - (number << bits), 1 << bits)
            try checkExtent(inode, chunk: number, device: device, block: block, used: used)
            if dataRuns != nil { extend(&run, device: Int(device), from: UInt64(block) * Self.blockSize, by: used) }
        }
        if let run { dataRuns?.append(run) }
    }

    /// Makes an extent part of the file's run when it follows it, or else the beginning of the next.
    private mutating func extend(_ run: inout DataRun?, device: Int, from start: UInt64, by count: UInt64) {
        if let last = run {
            if last.device == device, last.range.upperBound == start {
                run?.range = last.range.lowerBound..<start + count
                return
            }
            dataRuns?.append(last)
        }
        run = DataRun(device: device, range: start..<start + count)
    }

    /// `used` bytes from `block` on must exist: past a device's end the kernel reads zeros without an error.
    private func checkExtent(
        _ inode: Inode, chunk: UInt64, device: UInt16, block: UInt32, used: UInt64
    ) throws(ErofsError) {
        guard Int(device) <= devices.count else {
            throw ErofsError(
                .outsideDevice, "\(inode.place), chunk \(chunk)", "device \(device), the image has \(devices.count)")
        }
        let limit = device == 0 ? bytes.count : devices[Int(device) - 1]
        let end = UInt64(block) * Self.blockSize + used
        guard end <= limit else {
            throw ErofsError(
                .outsideDevice, "\(inode.place), chunk \(chunk)",
                "ends at byte \(end) of device \(device), which has \(limit)")
        }
    }

    // MARK: extended attributes

    /// Header, shared ids and inline entries (`struct erofs_xattr_ibody_header`, `struct erofs_xattr_entry`).
    mutating func checkXattrs(_ inode: Inode) throws(ErofsError) {
        func refuse(_ what: String) -> ErofsError { ErofsError(.badXattr, inode.place, what) }
        try charge(inode.xattrSize, inode.place)
        guard bytes.contains(inode.xattrOffset, inode.xattrSize) else {
            throw ErofsError(
                .outsideImage, inode.place,
                "\(inode.xattrSize) bytes of xattrs at \(inode.xattrOffset), the image has \(bytes.count)")
        }
        let shared = UInt64(try bytes.integer(at: inode.xattrOffset + 4, as: UInt8.self, inode.place))
        let end = inode.bodyOffset
        var at = inode.xattrOffset + 12
        guard shared * 4 <= end - at else {
            throw refuse("\(shared) shared xattrs do not fit \(inode.xattrSize) bytes")
        }
        for number in 0..<shared {
            let id: UInt32 = try bytes.integer(at: at + number * 4, inode.place)
            let entry = UInt64(superblock.xattrBlock) * Self.blockSize + UInt64(id) * 4
            // Names of shared xattrs are read once for every inode that has them.
            let name: UInt8 = try bytes.integer(at: entry, inode.place)
            try charge(UInt64(name), inode.place)
            _ = try checkXattrEntry(inode, at: entry)
        }
        at += shared * 4
        var count = 0
        while at < end {
            let size = try checkXattrEntry(inode, at: at)
            guard size <= end - at else { throw refuse("entry of \(size) bytes, \(end - at) are left") }
            at += size
            count += 1
        }
        if count > 1 || shared > 1 { xattrAreas?.append((inode.xattrOffset, inode.xattrSize)) }
    }

    /// Checks one entry and returns its size, padded to 4 bytes.
    private func checkXattrEntry(_ inode: Inode, at offset: UInt64) throws(ErofsError) -> UInt64 {
        let nameSize: UInt8 = try bytes.integer(at: offset, inode.place)
        let index: UInt8 = try bytes.integer(at: offset + 1, inode.place)
        let valueSize: UInt16 = try bytes.integer(at: offset + 2, inode.place)
        // Bit 7 refers to a long prefix; the superblock has none.
        guard index & 0x80 == 0 else {
            throw ErofsError(.badXattr, inode.place, "long name prefix \(index & 0x7F), the superblock has none")
        }
        let name = try bytes.slice(at: offset + 4, count: UInt64(nameSize), inode.place)
        guard !name.contains(0) else { throw ErofsError(.badXattr, inode.place, "name holds a NUL") }
        let size = (4 + UInt64(nameSize) + UInt64(valueSize) + 3) / 4 * 4
        guard bytes.contains(offset, size) else {
            throw ErofsError(.outsideImage, inode.place, "xattr of \(size) bytes at \(offset)")
        }
        return size
    }
}
