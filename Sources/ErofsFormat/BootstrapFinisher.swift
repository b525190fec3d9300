internal import ChunkModel

/// Makes what mkfs.erofs wrote reproducible: the same tree gives the same bytes, whenever and wherever it was built.
///
/// mkfs.erofs stamps its own clock into the superblock and keeps extended attributes in the order the source file
/// system lists them. Everything else follows from the tree when every inode is extended (own mtime). Pure; used by
/// the builder only.
package enum BootstrapFinisher {
    /// Sets the build time to 0, sorts extended attributes, writes the devices' sizes into the device table (mkfs.erofs
    /// 1.5 leaves 0, and statfs(2) tells them) and clears the UUID. The image is validated on the way.
    ///
    /// - Parameters:
    ///   - image: a bootstrap as mkfs.erofs wrote it.
    ///   - devices: raw size in bytes of each device; a multiple of 4096.
    package static func normalise(_ image: inout [UInt8], devices: [UInt64]) throws(ErofsError) {
        let superblock: Superblock
        let areas: [(offset: UInt64, size: UInt64)]
        do {
            // Two steps, because an array's bytes cannot be borrowed across a typed throw and then changed.
            let result = image.withUnsafeBytes { raw in survey(raw, devices) }
            (superblock, areas) = try result.get()
        }
        for area in areas { sortXattrs(&image, from: Int(area.offset), count: Int(area.size)) }
        let start = Int(Superblock.offset)
        put(UInt64(0), at: start + 24, &image)
        put(UInt32(0), at: start + 32, &image)
        for (number, size) in devices.enumerated() {
            let slot = Int(superblock.deviceTableOffset) + number * Int(DeviceSlot.size)
            put(UInt32(clamping: size / UInt64(Limits.blockSize)), at: slot + 64, &image)
        }
        try setUUID([UInt8](repeating: 0, count: 16), &image)
    }

    /// Writes the volume's UUID (16 bytes) and the checksum that follows from it.
    package static func setUUID(_ uuid: [UInt8], _ image: inout [UInt8]) throws(ErofsError) {
        precondition(uuid.count == 16)
        let start = Int(Superblock.offset)
        guard image.count >= Limits.blockSize else {
            throw ErofsError(.notErofs, "superblock", "expected at least 4096 bytes, found \(image.count)")
        }
        image.replaceSubrange(start + 48..<start + 64, with: uuid)
        // `feature_compat` says that there is a checksum.
        image[start + 8] |= UInt8(Superblock.Compatible.checksum)
        let checksum: Result<UInt32, ErofsError> = image.withUnsafeBytes { raw in
            Result { () throws(ErofsError) in try Superblock.expectedChecksum(ImageBytes(raw)) }
        }
        put(try checksum.get(), at: start + 4, &image)
    }

    private typealias Survey = (superblock: Superblock, areas: [(offset: UInt64, size: UInt64)])

    /// Validates, and lists the xattr areas with more than one entry.
    private static func survey(
        _ raw: UnsafeRawBufferPointer, _ devices: [UInt64]
    ) -> Result<Survey, ErofsError> {
        Result { () throws(ErofsError) in
            var walk = try BootstrapValidator(raw, devices: devices)
            walk.xattrAreas = []
            try walk.run()
            return (walk.superblock, walk.xattrAreas ?? [])
        }
    }

    /// Sorts the shared ids and the inline entries of one inode; both areas keep their size, so nothing moves.
    /// The area has passed the validator.
    private static func sortXattrs(_ image: inout [UInt8], from offset: Int, count: Int) {
        let shared = Int(image[offset + 4])
        let ids = offset + 12..<offset + 12 + shared * 4
        image.replaceSubrange(ids, with: pieces(image, ids) { _ in 4 }.joined())
        let entries = ids.upperBound..<offset + count
        let sorted = pieces(image, entries) { at in
            (4 + Int(image[at]) + Int(image[at + 2]) + Int(image[at + 3]) << 8 + 3) / 4 * 4
        }
        image.replaceSubrange(entries, with: sorted.joined())
    }

    /// Cuts a range into pieces of the size that `size` tells for each start, and sorts them by their bytes.
    private static func pieces(_ image: [UInt8], _ range: Range<Int>, _ size: (Int) -> Int) -> [ArraySlice<UInt8>] {
        var out: [ArraySlice<UInt8>] = []
        var at = range.lowerBound
        while at < range.upperBound {
            let next = at + size(at)
            out.append(image[at..<next])
            at = next
        }
        return out.sorted { $0.lexicographicallyPrecedes($1) }
    }

    private static func put<T: FixedWidthInteger & UnsignedInteger>(_ value: T, at offset: Int, _ image: inout [UInt8])
    {
        for index in 0..<T.bitWidth / 8 { image[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8)) }
    }
}
