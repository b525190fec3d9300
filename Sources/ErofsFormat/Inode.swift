internal import ChunkModel

/// What an inode is; raw values are the directory entry's `file_type` (`FT_*`).
package enum FileType: UInt8, Sendable, CaseIterable {
    case regular = 1
    case directory, characterDevice, blockDevice, fifo, socket, symlink

    /// The type in a mode's S_IFMT bits; nil for bits that mean nothing.
    init?(mode: UInt16) {
        switch mode & 0xF000 {
        case 0x8000: self = .regular
        case 0x4000: self = .directory
        case 0x2000: self = .characterDevice
        case 0x6000: self = .blockDevice
        case 0x1000: self = .fifo
        case 0xC000: self = .socket
        case 0xA000: self = .symlink
        default: return nil
        }
    }
}

/// An inode as it is on disk, compact (32 bytes) or extended (64 bytes): `struct erofs_inode_compact`,
/// `struct erofs_inode_extended`. Decoding checks the format; where its data lies is the validator's matter.
package struct Inode: Equatable, Sendable {
    /// Where the data is.
    package enum Layout: UInt16, Sendable {
        /// In whole blocks of the primary device.
        case flatPlain = 0
        /// In whole blocks, the last one inline after the inode.
        case flatInline = 2
        /// In chunks, by a table after the inode.
        case chunkBased = 4
    }

    /// Inode numbers count these.
    package static let slotSize: UInt64 = 32

    package let nid: UInt64
    /// Byte offset in the image.
    package let offset: UInt64
    package let layout: Layout
    package let isExtended: Bool
    package let type: FileType
    package let mode: UInt16
    /// Bytes of content, at most `Int64.max`.
    package let size: UInt64
    package let uid: UInt32
    package let gid: UInt32
    package let linkCount: UInt32
    /// Seconds since 1970; nil for a compact inode, which takes the superblock's build time.
    package let mtime: UInt64?
    /// `i_u`: start block, device number or chunk format, according to type and layout.
    let union: UInt32
    /// Bytes of xattrs that follow the inode, 0 for none.
    let xattrSize: UInt64

    /// Bytes of the inode itself.
    package var headerSize: UInt64 { isExtended ? 64 : 32 }
    /// Byte offset of the xattrs.
    var xattrOffset: UInt64 { offset + headerSize }
    /// Byte offset of what follows the xattrs: an inline tail, or (aligned) the chunk table.
    var bodyOffset: UInt64 { xattrOffset + xattrSize }
    var place: String { Self.place(nid) }

    static func place(_ nid: UInt64) -> String { "inode \(nid)" }

    /// Decodes the inode `nid` at byte `offset`.
    init(_ bytes: ImageBytes, nid: UInt64, at offset: UInt64) throws(ErofsError) {
        let place = { Self.place(nid) }
        let format: UInt16 = try bytes.integer(at: offset, place())
        // Bits above 3 are the 48-bit layout's, which no accepted superblock announces.
        guard format & ~0xF == 0, let layout = Layout(rawValue: format >> 1 & 7) else {
            throw ErofsError(
                .unsupported, place(), "i_format 0x\(String(format, radix: 16)): expected flat or chunk-based data")
        }
        self.nid = nid
        self.offset = offset
        self.layout = layout
        isExtended = format & 1 == 1
        let xattrCount: UInt16 = try bytes.integer(at: offset + 2, place())
        // A 12-byte header, counted as one, and 4 bytes for each further one.
        xattrSize = xattrCount == 0 ? 0 : 12 + 4 * UInt64(xattrCount - 1)
        mode = try bytes.integer(at: offset + 4, place())
        guard let type = FileType(mode: mode) else {
            throw ErofsError(.badInode, place(), "mode 0\(String(mode, radix: 8)) has no file type")
        }
        self.type = type
        union = try bytes.integer(at: offset + 16, place())
        if isExtended {
            guard bytes.contains(offset, 64) else {
                throw ErofsError(.outsideImage, place(), "64 bytes at \(offset), the image has \(bytes.count)")
            }
            size = try bytes.integer(at: offset + 8, place())
            uid = try bytes.integer(at: offset + 24, place())
            gid = try bytes.integer(at: offset + 28, place())
            mtime = try bytes.integer(at: offset + 32, as: UInt64.self, place())
            linkCount = try bytes.integer(at: offset + 44, place())
        } else {
            guard bytes.contains(offset, 32) else {
                throw ErofsError(.outsideImage, place(), "32 bytes at \(offset), the image has \(bytes.count)")
            }
            linkCount = UInt32(try bytes.integer(at: offset + 6, as: UInt16.self, place()))
            size = UInt64(try bytes.integer(at: offset + 8, as: UInt32.self, place()))
            uid = UInt32(try bytes.integer(at: offset + 24, as: UInt16.self, place()))
            gid = UInt32(try bytes.integer(at: offset + 26, as: UInt16.self, place()))
            mtime = nil
        }
        guard size <= UInt64(Int64.max) else {
            throw ErofsError(.badInode, place(), "size \(size), limit \(Int64.max)")
        }
    }
}
