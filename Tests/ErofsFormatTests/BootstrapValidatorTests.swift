import Foundation
import Testing

@testable import ErofsFormat

@Suite("A bootstrap that mkfs.erofs made is accepted, any damage that could mislead the kernel is refused")
struct BootstrapValidatorTests {
    /// Made once: mkfs.erofs and the tools that write the tree take a second.
    private static let shared = Result { try Fixture(Fixture.various) }
    let fixture: Fixture

    init() throws { fixture = try Self.shared.get() }

    private func validate(_ image: [UInt8], devices: [UInt64]? = nil) throws(ErofsError) -> BootstrapSummary {
        let devices = devices ?? fixture.devices
        let result: Result<BootstrapSummary, ErofsError> = image.withUnsafeBytes { raw in
            Result { () throws(ErofsError) in try BootstrapValidator.validate(raw, devices: devices) }
        }
        return try result.get()
    }

    /// The code of the refusal; nil when the image is accepted.
    private func refusal(_ image: [UInt8], devices: [UInt64]? = nil) -> ErofsError.Code? {
        do throws(ErofsError) {
            _ = try validate(image, devices: devices)
            return nil
        } catch { return error.code }
    }

    /// The image with a change made by `edit` and a superblock checksum that is right again.
    private func edited(_ edit: (inout [UInt8]) throws -> Void) rethrows -> [UInt8] {
        var image = fixture.bootstrap
        try edit(&image)
        sign(&image)
        return image
    }

    private func sign(_ image: inout [UInt8]) {
        let sum = image.withUnsafeBytes { try? Superblock.expectedChecksum(ImageBytes($0)) } ?? 0
        for index in 0..<4 { image[1028 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(index * 8)) }
    }

    private func superblock() throws -> Superblock {
        try fixture.bootstrap.withUnsafeBytes { try Superblock(image: $0) }
    }

    private func inode(_ nid: UInt64) throws -> Inode {
        let base = try superblock().metadataOffset
        return try fixture.bootstrap.withUnsafeBytes {
            try Inode(ImageBytes($0), nid: nid, at: base + nid * Inode.slotSize)
        }
    }

    private func root() throws -> Inode { try inode(UInt64(try superblock().rootNid)) }

    /// The entries of a directory that fits its inline tail: (name, byte offset of the entry, nid).
    private func entries(_ directory: Inode) throws -> [(name: String, offset: Int, nid: UInt64)] {
        let image = fixture.bootstrap
        let start = Int(directory.bodyOffset)
        func u16(_ at: Int) -> Int { Int(image[at]) | Int(image[at + 1]) << 8 }
        let count = u16(start + 8) / 12
        var out: [(name: String, offset: Int, nid: UInt64)] = []
        for number in 0..<count {
            let at = start + number * 12
            let from = start + u16(at + 8)
            let to = number + 1 < count ? start + u16(at + 20) : start + Int(directory.size)
            var nid: UInt64 = 0
            for index in 0..<8 { nid |= UInt64(image[at + index]) << UInt64(index * 8) }
            out.append((String(decoding: image[from..<to].prefix { $0 != 0 }, as: UTF8.self), at, nid))
        }
        return out
    }

    private func entry(_ path: String...) throws -> (offset: Int, nid: UInt64) {
        var directory = try root()
        var found: (name: String, offset: Int, nid: UInt64)?
        for name in path {
            if let found { directory = try inode(found.nid) }
            let entries = try entries(directory)
            let next = try #require(entries.first { $0.name == name })
            found = next
        }
        let last = try #require(found)
        return (last.offset, last.nid)
    }

    @Test func aSurveyTellsWhereTheDataOfFilesLies() throws {
        let (summary, runs) = try fixture.bootstrap.withUnsafeBytes {
            try BootstrapValidator.survey($0, devices: fixture.devices)
        }
        #expect(summary == (try validate(fixture.bootstrap)))
        // Files of several EROFS chunks that follow each other are in one piece.
        let sizes = runs.map { $0.range.upperBound - $0.range.lowerBound }
        for size in [4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] as [UInt64] {
            #expect(sizes.contains(size), "\(size)")
        }
        #expect(runs.allSatisfy { $0.device == 1 && $0.range.lowerBound % 4096 == 0 })
        #expect(runs.map(\.range.upperBound).max() ?? 0 <= fixture.devices[0])
        #expect(runs.map(\.range.upperBound).max() ?? 0 > fixture.devices[0] - 4096)
    }

    @Test func aWholeTreeIsCounted() throws {
        let summary = try validate(fixture.bootstrap)
        #expect(summary.regularFiles == 8 + 300 + 1)
        #expect(summary.directories == 5)
        #expect(summary.symlinks == 1)
        #expect(summary.specialFiles == 2)
        #expect(summary.names == 317, "the hard link has a name of its own")
        let sized = 0 + 1 + 4095 + 4096 + 4097 + 3 * 1_048_576
        #expect(summary.fileBytes == UInt64(sized + 300 * 10 + 5))
    }

    @Test func inodesAreDecodedAsStatTellsThem() throws {
        let small = try inode(try entry("a", "size1").nid)
        #expect(small.type == .regular && small.size == 1 && small.linkCount == 2 && small.isExtended)
        #expect(small.mode & 0o7777 == 0o644 && small.uid == 0)
        #expect(try entry("hard").nid == small.nid)
    }

    @Test func plainImagesWithoutDevicesAreAccepted() throws {
        let empty = try Fixture { tree in try Fixture.run("mkdir", [tree + "/only", tree + "/only/directories"]) }
        #expect(empty.devices == [0])
        #expect(try validate(empty.bootstrap, devices: [0]).directories == 3)
    }

    @Test func theSuperblockMustBeThereAndWhole() throws {
        #expect(refusal([]) == .notErofs)
        #expect(refusal([UInt8](repeating: 0, count: 8192)) == .notErofs)
        #expect(refusal(Array(fixture.bootstrap.prefix(4095))) == .outsideImage)
        var flipped = fixture.bootstrap
        flipped[1200] ^= 1
        #expect(refusal(flipped) == .badChecksum)
    }

    @Test(arguments: [0, 1, 4, 5, 6, 7, 8, 15, 31]) func unknownIncompatibleFeaturesAreRefused(_ bit: Int) throws {
        let image = edited { $0[1104 + bit / 8] |= UInt8(1) << (bit % 8) }
        // Bit 0 only says how LZ4 data would be laid out; there is none.
        #expect(refusal(image) == (bit == 0 ? nil : .unsupported))
    }

    @Test func otherBlockSizesCompressionAndDirectoryBlocksAreRefused() throws {
        for offset in [1036, 1108, 1114, 1115, 1120] {
            #expect(refusal(edited { $0[offset] ^= 1 }) == .unsupported, "byte \(offset)")
        }
        #expect(refusal(edited { $0[1032] |= 8 }) == .unsupported)
    }

    @Test func theDeviceTableMustMatchTheDevicesGiven() throws {
        #expect(refusal(fixture.bootstrap, devices: []) == .badDevices)
        #expect(refusal(fixture.bootstrap, devices: fixture.devices + [4096]) == .badDevices)
        #expect(refusal(edited { $0[1110] = 2 }) == .badDevices)
        #expect(refusal(edited { $0[1113] = 0xFF }) == .outsideImage)
        let slot = Int(try superblock().deviceTableOffset)
        #expect(refusal(edited { $0[slot + 68] = 1 }) == .badDevices, "unified address inside the bootstrap")
    }

    @Test func fileDataMustLieInsideItsDevice() throws {
        #expect(refusal(fixture.bootstrap, devices: [fixture.devices[0] - 4096]) == .outsideDevice)
        let file = try inode(try entry("a", "size7").nid)
        #expect(file.layout == .chunkBased)
        let table = Int((file.bodyOffset + 7) / 8 * 8)
        #expect(refusal(edited { $0[table + 7] = 0x7F }) == .outsideDevice, "block far beyond the end")
        #expect(refusal(edited { $0[table + 2] = 2 }) == .outsideDevice, "device that does not exist")
        #expect(refusal(edited { $0[table + 2] = 3 }) == .outsideDevice, "device whose masked number exists")
        #expect(refusal(edited { $0[table + 2] = 0 }) == .outsideDevice, "the bootstrap is smaller than the file")
        let hole = edited { image in for index in 4..<8 { image[table + index] = 0xFF } }
        #expect(refusal(hole) == nil, "holes are fine")
        #expect(refusal(edited { $0[Int(file.offset) + 16] |= 0x40 }) == .unsupported, "48-bit chunk format")
        #expect(refusal(edited { $0[Int(file.offset) + 13] = 0x7F }) == .outsideImage, "table of a huge file")
        #expect(refusal(edited { $0[Int(file.offset) + 15] = 0x80 }) == .badInode, "negative size")
    }

    @Test func inodesMustBeOfAKnownFormatAndType() throws {
        let file = try inode(try entry("a", "size1").nid)
        #expect(refusal(edited { $0[Int(file.offset)] = 0x03 }) == .unsupported, "compressed")
        #expect(refusal(edited { $0[Int(file.offset)] = 0x0B }) == .unsupported, "layout 5")
        #expect(refusal(edited { $0[Int(file.offset)] |= 0x10 }) == .unsupported, "48-bit bit")
        #expect(refusal(edited { $0[Int(file.offset) + 5] = 0xF0 }) == .badInode, "no file type")
        #expect(refusal(edited { $0[Int(file.offset) + 5] = 0x41 }) == .badInode, "a directory named as a file")
    }

    @Test func extendedAttributesMustFitTheirInode() throws {
        let file = try inode(try entry("a", "size1").nid)
        #expect(file.xattrSize > 12)
        #expect(refusal(edited { $0[Int(file.xattrOffset) + 4] = 0xFF }) == .badXattr, "too many shared ids")
        let entry = Int(file.xattrOffset) + 12
        #expect([.badXattr, .outsideImage].contains(refusal(edited { $0[entry + 3] = 0xFF })), "value beyond the area")
        #expect(refusal(edited { $0[entry + 1] |= 0x80 }) == .badXattr, "long prefix")
        #expect(refusal(edited { $0[entry + 4] = 0 }) == .badXattr, "NUL in the name")
        #expect(refusal(edited { $0[Int(file.offset) + 3] = 0xFF }) != nil, "area beyond the inode")
    }

    @Test func namesMustBeNames() throws {
        let start = Int(try root().bodyOffset)
        func place(of name: String) throws -> Int {
            let at = try entry(name).offset
            return start + Int(fixture.bootstrap[at + 8]) + Int(fixture.bootstrap[at + 9]) << 8
        }
        let hard = try place(of: "hard")
        let sym = try place(of: "sym")
        #expect(refusal(edited { $0[hard + 1] = UInt8(ascii: "/") }) == .badName)
        #expect(refusal(edited { $0[hard + 1] = 0 }) == .badName)
        #expect(refusal(edited { $0[hard] = UInt8(ascii: "z") }) == .badDirectory, "out of order")
        let odd = edited { image in for (index, byte) in "odd".utf8.enumerated() { image[sym + index] = byte } }
        #expect(refusal(odd) == .badDirectory, "out of order")
    }

    @Test func directoryEntriesMustPointInsideTheirBlock() throws {
        let first = try entries(try root())[0].offset
        #expect(refusal(edited { $0[first + 8] = 0 }) == .badDirectory, "no entries")
        #expect(refusal(edited { $0[first + 8] = 13 }) == .badDirectory, "not a whole number of entries")
        #expect(refusal(edited { $0[first + 9] = 0x7F }) == .badDirectory, "names outside")
        let second = try entries(try root())[1].offset
        #expect(refusal(edited { $0[second + 9] = 0x7F }) == .badDirectory)
        #expect(refusal(edited { $0[second + 10] = 9 }) == .badDirectory, "unknown file type")
        #expect(refusal(edited { $0[second + 6] = 1 }) != nil, "inode number beyond the image")
    }

    @Test func directoriesFormATree() throws {
        let nested = try entry("a", "b")
        let rootNid = UInt8(try superblock().rootNid)
        let loop = edited { image in
            image[nested.offset] = rootNid
            for index in 1..<8 { image[nested.offset + index] = 0 }
        }
        #expect(refusal(loop) == .badDirectory, "a directory below itself")
        let other = try entry("empty")
        let twice = edited { image in
            for index in 0..<8 {
                image[nested.offset + index] = UInt8(truncatingIfNeeded: other.nid >> UInt64(index * 8))
            }
        }
        #expect(refusal(twice) == .badDirectory, "a directory with two parents")
        let root = try root()
        #expect(refusal(edited { $0[Int(root.bodyOffset)] ^= 1 }) == .badDirectory, "'.' is somebody else")
    }

    @Test func metadataMayNotLieOnALazyDevice() throws {
        let directory = try inode(try entry("empty").nid)
        #expect(refusal(edited { $0[Int(directory.offset)] = 0x09 }) == .unsupported)
        let link = try inode(try entry("sym").nid)
        #expect(refusal(edited { $0[Int(link.offset)] = 0x09 }) == .unsupported)
        #expect(refusal(edited { $0[Int(link.offset) + 8] = 0 }) == .badSymlink, "empty target")
        #expect(refusal(edited { $0[Int(link.offset) + 9] = 0x40 }) == .badSymlink, "target beyond PATH_MAX")
        #expect(refusal(edited { $0[Int(link.bodyOffset)] = 0 }) == .badSymlink, "NUL in the target")
    }

    @Test func dataSharedByManyInodesIsRefusedBeforeItCostsMuch() throws {
        let links = try Fixture { tree in
            for number in 0..<300 {
                try FileManager.default.createSymbolicLink(
                    atPath: tree + "/link\(number)", withDestinationPath: "target")
            }
        }
        // One more block, and every symlink claims nearly all of it as its target.
        var image = links.bootstrap + [UInt8](repeating: 0x41, count: 4096)
        let block = UInt8(links.bootstrap.count / 4096)
        let base = try image.withUnsafeBytes { try Superblock(image: $0) }.metadataOffset
        var changed = 0
        for at in stride(from: Int(base), to: links.bootstrap.count - 64, by: 32) {
            let found = image.withUnsafeBytes { try? Inode(ImageBytes($0), nid: 0, at: UInt64(at)) }
            guard let found, found.type == .symlink, found.size == 6, found.isExtended else { continue }
            image.replaceSubrange(at..<at + 1, with: [0x01])
            image.replaceSubrange(at + 8..<at + 10, with: [0xA0, 0x0F])
            image.replaceSubrange(at + 16..<at + 20, with: [block, 0, 0, 0])
            changed += 1
        }
        sign(&image)
        #expect(changed == 300)
        #expect(refusal(image, devices: links.devices) == .limitExceeded)
    }

    @Test func noDamageMakesTheValidatorTrap() throws {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var random = SplitMix(state: seed)
        var refused = 0
        for _ in 0..<4000 {
            let image = edited { image in
                for _ in 0...Int(random.next() % 3) {
                    let at =
                        random.next() % 4 == 0
                        ? 1024 + Int(random.next() % 256) : Int(random.next() % UInt64(image.count))
                    image[at] = random.next() % 2 == 0 ? UInt8(truncatingIfNeeded: random.next()) : 0xFF
                }
            }
            if refusal(image) != nil { refused += 1 }
        }
        #expect(refused > 400, "seed \(seed)")
    }
}

/// splitmix64: a small generator whose state is its seed.
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ value >> 30) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ value >> 27) &* 0x94D0_49BB_1331_11EB
        return value ^ value >> 31
    }
}
