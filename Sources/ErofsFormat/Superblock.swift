internal import ChunkModel

/// The EROFS superblock (Linux `fs/erofs/erofs_fs.h`, `struct erofs_super_block`), 128 bytes at offset 1024.
package struct Superblock: Equatable, Sendable {
    /// Byte offset of the superblock in the image.
    package static let offset: UInt64 = 1024
    /// Bytes without extension slots.
    package static let size: UInt64 = 128
    package static let magic: UInt32 = 0xE0F5_E1E2

    /// `feature_compat` bits: a kernel that does not know them may still mount.
    package enum Compatible {
        package static let checksum: UInt32 = 0x1
        package static let mtime: UInt32 = 0x2
        package static let xattrFilter: UInt32 = 0x4
        /// All that chunkd accepts. The later ones move shared xattrs and prefixes to places not checked here.
        static let accepted = checksum | mtime | xattrFilter
    }

    /// `feature_incompat` bits: a kernel that does not know them must not mount.
    package enum Incompatible {
        /// Layout of LZ4 data; plain mkfs.erofs versions set it although nothing is compressed.
        package static let lz4ZeroPadding: UInt32 = 0x1
        package static let chunkedFile: UInt32 = 0x4
        package static let deviceTable: UInt32 = 0x8
        /// All that chunkd accepts: no compression, fragments, deduplication, long xattr prefixes, 48-bit layout.
        static let accepted = lz4ZeroPadding | chunkedFile | deviceTable
    }

    /// CRC-32C of the first block from the superblock on, with this field as zero.
    package let checksum: UInt32
    package let featureCompat: UInt32
    package let featureIncompat: UInt32
    /// Block size is 1 << this.
    package let blockSizeBits: UInt8
    /// 16-byte extension slots after the superblock.
    package let extensionSlots: UInt8
    /// Inode number of the root directory.
    package let rootNid: UInt16
    /// Number of inodes, as statfs(2) tells it.
    package let inodeCount: UInt64
    /// Seconds since 1970: mtime of compact inodes.
    package let buildTime: UInt64
    package let buildTimeNanoseconds: UInt32
    /// Blocks of the primary device, as statfs(2) tells it.
    package let blocks: UInt32
    /// Block from which inode numbers count.
    package let metadataBlock: UInt32
    /// Block from which shared xattr ids count.
    package let xattrBlock: UInt32
    package let uuid: [UInt8]
    /// Compression algorithms, or LZ4's window; 0 where nothing is compressed.
    package let compression: UInt16
    package let extraDevices: UInt16
    /// Offset of the device table, in slots of `DeviceSlot.size`.
    package let deviceTableSlot: UInt16
    let directoryBlockBits: UInt8
    let xattrPrefixCount: UInt8
    let packedNid: UInt64

    /// Byte offset of the device table.
    package var deviceTableOffset: UInt64 { UInt64(deviceTableSlot) * DeviceSlot.size }
    /// Byte offset from which inode numbers count.
    package var metadataOffset: UInt64 { UInt64(metadataBlock) * UInt64(Limits.blockSize) }

    /// Reads the superblock of an image's first bytes; only the magic is checked.
    package init(image: UnsafeRawBufferPointer) throws(ErofsError) {
        let bytes = ImageBytes(image)
        let at = Self.offset
        guard bytes.contains(at, Self.size) else {
            throw ErofsError(.notErofs, "superblock", "expected at least \(at + Self.size) bytes, found \(image.count)")
        }
        let found: UInt32 = try bytes.integer(at: at, "superblock")
        guard found == Self.magic else {
            throw ErofsError(
                .notErofs, "superblock",
                "expected magic 0x\(String(Self.magic, radix: 16)), found 0x\(String(found, radix: 16))")
        }
        checksum = try bytes.integer(at: at + 4, "superblock")
        featureCompat = try bytes.integer(at: at + 8, "superblock")
        blockSizeBits = try bytes.integer(at: at + 12, "superblock")
        extensionSlots = try bytes.integer(at: at + 13, "superblock")
        rootNid = try bytes.integer(at: at + 14, "superblock")
        inodeCount = try bytes.integer(at: at + 16, "superblock")
        buildTime = try bytes.integer(at: at + 24, "superblock")
        buildTimeNanoseconds = try bytes.integer(at: at + 32, "superblock")
        blocks = try bytes.integer(at: at + 36, "superblock")
        metadataBlock = try bytes.integer(at: at + 40, "superblock")
        xattrBlock = try bytes.integer(at: at + 44, "superblock")
        uuid = Array(try bytes.slice(at: at + 48, count: 16, "superblock"))
        featureIncompat = try bytes.integer(at: at + 80, "superblock")
        compression = try bytes.integer(at: at + 84, "superblock")
        extraDevices = try bytes.integer(at: at + 86, "superblock")
        deviceTableSlot = try bytes.integer(at: at + 88, "superblock")
        directoryBlockBits = try bytes.integer(at: at + 90, "superblock")
        xattrPrefixCount = try bytes.integer(at: at + 91, "superblock")
        packedNid = try bytes.integer(at: at + 96, "superblock")
    }

    /// What `checksum` has to be: the CRC-32C register over the first block from the superblock on, the checksum field
    /// taken as zero (erofs-utils `erofs_superblock_csum_set`). The block must be whole.
    static func expectedChecksum(_ bytes: ImageBytes) throws(ErofsError) -> UInt32 {
        let end = UInt64(Limits.blockSize)
        let head = try bytes.slice(at: offset, count: 4, "superblock")
        let tail = try bytes.slice(at: offset + 8, count: end - offset - 8, "superblock")
        var register = CRC32C.register(head)
        register = CRC32C.register([0, 0, 0, 0], seed: register)
        return CRC32C.register(tail, seed: register)
    }
}

/// One entry of the device table (`struct erofs_deviceslot`): an extra device that holds file data.
package struct DeviceSlot: Equatable, Sendable {
    /// Bytes of a slot.
    package static let size: UInt64 = 128

    /// Blocks of the device; mkfs.erofs 1.5 leaves 0.
    package let blocks: UInt32
    /// Where the device also appears in the primary device's address space; 0 for nowhere.
    package let unifiedAddress: UInt32

    init(_ bytes: ImageBytes, at offset: UInt64, _ place: String) throws(ErofsError) {
        blocks = try bytes.integer(at: offset + 64, place)
        unifiedAddress = try bytes.integer(at: offset + 68, place)
    }
}
