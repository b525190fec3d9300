extension GateProtocol {
    private enum Kind: UInt16 {
        case hello = 1
        case openImage, closeImage, fill, fail, copy, residency, list, stat, verify, removeImage, blobFile,
            bootstrapFile, makeSnapshot, removeSnapshot, snapshotUsage, listSnapshots,
            listBlocked, keepListener, keptListener
        case helloReply = 64
        case miss, touched, filled, reply, image, end, residencyBits, counters, verified, snapshotMeasured, snapshots,
            blocked
    }

    private static func header(_ kind: Kind, _ request: UInt32) -> ByteWriter {
        var out = ByteWriter()
        out.integer(kind.rawValue)
        out.integer(version)
        out.integer(request)
        return out
    }

    private static func open(_ frame: [UInt8]) throws(Malformed) -> (Kind, UInt32, ByteReader) {
        guard frame.count <= maxFrameSize else { throw .tooLarge(frame.count) }
        var reader = ByteReader(frame)
        guard let kind = reader.integer(UInt16.self), let version = reader.integer(UInt16.self),
            let request = reader.integer(UInt32.self)
        else { throw .truncated }
        guard version == Self.version else { throw .version(version) }
        guard let known = Kind(rawValue: kind) else { throw .unknownKind(kind, number: request) }
        return (known, request, reader)
    }

    /// The bytes of one request frame.
    package static func encode(_ request: Request, number: UInt32) -> [UInt8] {
        var out: ByteWriter
        switch request {
        case .hello(let slotSize, let slotCount):
            out = header(.hello, number)
            out.integer(slotSize)
            out.integer(slotCount)
        case .openImage(let manifest, let mount, let blobCount):
            out = header(.openImage, number)
            out.digest(manifest)
            out.integer(UInt32(mount ? 1 : 0))
            out.integer(blobCount)
        case .closeImage(let manifest):
            out = header(.closeImage, number)
            out.digest(manifest)
        case .fill(let at, let slot, let length, let repair):
            out = header(.fill, number)
            out.address(at)
            out.integer(slot)
            out.integer(length)
            out.integer(UInt32(repair ? 1 : 0))
        case .fail(let at, let errno):
            out = header(.fail, number)
            out.address(at)
            out.integer(errno)
        case .copy(let to, let from):
            out = header(.copy, number)
            out.address(to)
            out.address(from)
        case .residency(let blob):
            out = header(.residency, number)
            out.integer(blob)
        case .list: out = header(.list, number)
        case .stat: out = header(.stat, number)
        case .verify(let blob, let first, let count):
            out = header(.verify, number)
            for value in [blob, first, count] { out.integer(value) }
        case .removeImage(let manifest):
            out = header(.removeImage, number)
            out.digest(manifest)
        case .blobFile(let blob):
            out = header(.blobFile, number)
            out.integer(blob)
        case .bootstrapFile(let manifest):
            out = header(.bootstrapFile, number)
            out.digest(manifest)
        case .makeSnapshot(let id, let like):
            out = header(.makeSnapshot, number)
            out.integer(id)
            out.like(like)
        case .removeSnapshot(let id):
            out = header(.removeSnapshot, number)
            out.integer(id)
        case .snapshotUsage(let id):
            out = header(.snapshotUsage, number)
            out.integer(id)
        case .listSnapshots(let after):
            out = header(.listSnapshots, number)
            out.integer(after)
        case .listBlocked: out = header(.listBlocked, number)
        case .keepListener: out = header(.keepListener, number)
        case .keptListener: out = header(.keptListener, number)
        }
        return out.bytes
    }

    /// Decodes a request frame; never traps, whatever the bytes.
    package static func decodeRequest(_ frame: [UInt8]) throws(Malformed) -> (request: Request, number: UInt32) {
        var (kind, number, reader) = try open(frame)
        let request: Request
        switch kind {
        case .hello: request = .hello(slotSize: try reader.u32(), slotCount: try reader.u32())
        case .openImage:
            request = .openImage(
                manifest: try reader.sha256(), mount: try reader.flag("mount"), blobCount: try reader.u32())
        case .closeImage: request = .closeImage(manifest: try reader.sha256())
        case .fill:
            request = .fill(
                at: try reader.address(), slot: try reader.u32(), length: try reader.u32(),
                repair: try reader.flag("repair"))
        case .fail: request = .fail(at: try reader.address(), errno: try reader.u32())
        case .copy: request = .copy(to: try reader.address(), from: try reader.address())
        case .residency: request = .residency(blob: try reader.u32())
        case .list: request = .list
        case .stat: request = .stat
        case .verify:
            request = .verify(blob: try reader.u32(), first: try reader.u32(), count: try reader.u32())
        case .removeImage: request = .removeImage(manifest: try reader.sha256())
        case .blobFile: request = .blobFile(blob: try reader.u32())
        case .bootstrapFile: request = .bootstrapFile(manifest: try reader.sha256())
        case .makeSnapshot: request = .makeSnapshot(id: try reader.u64(), like: try reader.like())
        case .removeSnapshot: request = .removeSnapshot(id: try reader.u64())
        case .snapshotUsage: request = .snapshotUsage(id: try reader.u64())
        case .listSnapshots: request = .listSnapshots(after: try reader.u64())
        case .listBlocked: request = .listBlocked
        case .keepListener: request = .keepListener
        case .keptListener: request = .keptListener
        default: throw .unknownKind(kind.rawValue, number: number)
        }
        guard reader.remaining == 0 else { throw .badValue(field: "length") }
        return (request, number)
    }

    /// The bytes of one event or reply frame.
    package static func encode(_ event: Event, number: UInt32 = 0) -> [UInt8] {
        var out: ByteWriter
        switch event {
        case .helloReply(let gap, let epoch):
            out = header(.helloReply, number)
            out.integer(UInt32(gap ? 1 : 0))
            out.integer(epoch)
        case .miss(let address):
            out = header(.miss, number)
            out.address(address)
        case .touched(let addresses):
            out = header(.touched, number)
            for address in addresses.prefix(maxTouched) { out.address(address) }
        case .filled(let at, let slot, let status, let errno):
            out = header(.filled, number)
            out.address(at)
            for value in [slot, status.rawValue, errno] { out.integer(value) }
        case .reply(let errno, let value, let message):
            out = header(.reply, number)
            out.integer(errno)
            out.integer(value)
            out.string(message)
        case .image(let info):
            out = header(.image, number)
            out.image(info)
        case .end: out = header(.end, number)
        case .residencyBits(let blob, let chunkCount, let bits):
            out = header(.residencyBits, number)
            out.integer(blob)
            out.integer(chunkCount)
            out.raw(bits)
        case .counters(let values):
            out = header(.counters, number)
            for counter in Counter.allCases {
                guard let value = values[counter] else { continue }
                out.integer(counter.rawValue)
                out.integer(value)
            }
        case .verified(let blob, let checked, let absent, let bad):
            out = header(.verified, number)
            for value in [blob, checked, absent] + bad { out.integer(value) }
        case .snapshotUsage(let id, let bytes, let inodes):
            out = header(.snapshotMeasured, number)
            for value in [id, bytes, inodes] { out.integer(value) }
        case .snapshots(let ids):
            out = header(.snapshots, number)
            for id in ids.prefix(maxListedSnapshots) { out.integer(id) }
        case .blocked(let readers):
            out = header(.blocked, number)
            for reader in readers.prefix(maxListedBlocked) {
                out.integer(reader.pid)
                out.address(reader.at)
                out.integer(reader.milliseconds)
            }
        }
        return out.bytes
    }

    /// Decodes an event or reply frame; never traps, whatever the bytes.
    package static func decodeEvent(_ frame: [UInt8]) throws(Malformed) -> (event: Event, number: UInt32) {
        var (kind, number, reader) = try open(frame)
        let event: Event
        switch kind {
        case .helloReply: event = .helloReply(integrityGap: try reader.flag("gap"), epoch: try reader.u64())
        case .miss: event = .miss(try reader.address())
        case .touched:
            var list: [ChunkAddress] = []
            while reader.remaining > 0, list.count < maxTouched { list.append(try reader.address()) }
            event = .touched(list)
        case .filled:
            let at = try reader.address()
            let slot = try reader.u32()
            guard let status = FillStatus(rawValue: try reader.u32()) else { throw .badValue(field: "status") }
            event = .filled(at: at, slot: slot, status: status, errno: try reader.u32())
        case .reply:
            event = .reply(errno: try reader.u32(), value: try reader.u64(), message: try reader.string())
        case .image: event = .image(try reader.image())
        case .end: event = .end
        case .residencyBits:
            let blob = try reader.u32()
            let count = try reader.u32()
            guard count <= Limits.maxChunksPerBlob, let bits = reader.take((Int(count) + 7) / 8) else {
                throw .truncated
            }
            event = .residencyBits(blob: blob, chunkCount: count, bits: Array(bits))
        case .counters:
            var values: [Counter: UInt64] = [:]
            while reader.remaining > 0 {
                guard let number = reader.integer(UInt16.self) else { throw .truncated }
                let value = try reader.u64()
                if let counter = Counter(rawValue: number) { values[counter] = value }
            }
            event = .counters(values)
        case .verified:
            let (blob, checked, absent) = (try reader.u32(), try reader.u32(), try reader.u32())
            var bad: [UInt32] = []
            while reader.remaining > 0, bad.count < maxVerifyChunks { bad.append(try reader.u32()) }
            event = .verified(blob: blob, checked: checked, absent: absent, bad: bad)
        case .snapshotMeasured:
            event = .snapshotUsage(id: try reader.u64(), bytes: try reader.u64(), inodes: try reader.u64())
        case .snapshots:
            var ids: [UInt64] = []
            while reader.remaining > 0, ids.count < maxListedSnapshots { ids.append(try reader.u64()) }
            event = .snapshots(ids)
        case .blocked:
            var readers: [BlockedReader] = []
            while reader.remaining > 0, readers.count < maxListedBlocked {
                readers.append(
                    .init(pid: try reader.u32(), at: try reader.address(), milliseconds: try reader.u32()))
            }
            event = .blocked(readers)
        default: throw .unknownKind(kind.rawValue, number: number)
        }
        guard reader.remaining == 0 else { throw .badValue(field: "length") }
        return (event, number)
    }
}

extension ByteWriter {
    fileprivate mutating func address(_ value: GateProtocol.ChunkAddress) {
        integer(value.blob)
        integer(value.chunk)
    }

    fileprivate mutating func like(_ value: GateProtocol.SnapshotLike) {
        switch value {
        case .none: integer(UInt32(0))
        case .snapshot(let id):
            integer(UInt32(1))
            integer(id)
        case .image(let manifest):
            integer(UInt32(2))
            digest(manifest)
        }
    }

    /// A string of at most 1,024 bytes; the rest is cut.
    fileprivate mutating func string(_ value: String) {
        let bytes = value.utf8.prefix(1024)
        integer(UInt16(bytes.count))
        raw(bytes)
    }

    fileprivate mutating func image(_ info: GateProtocol.ImageInfo) {
        digest(info.manifest)
        integer(UInt32((info.mounted ? 1 : 0) | (info.tainted ? 2 : 0)))
        integer(info.bootstrapSize)
        string(info.path)
        integer(UInt32(info.blobs.count))
        for blob in info.blobs {
            integer(blob.handle)
            digest(blob.digest)
            integer(blob.rawSize)
            integer(blob.chunkCount)
            integer(blob.residentCount)
            integer(blob.residentBytes)
            integer(UInt32(blob.graduated ? 1 : 0))
        }
    }
}

extension ByteReader {
    fileprivate mutating func u32() throws(GateProtocol.Malformed) -> UInt32 {
        guard let value = integer(UInt32.self) else { throw .truncated }
        return value
    }

    fileprivate mutating func u64() throws(GateProtocol.Malformed) -> UInt64 {
        guard let value = integer(UInt64.self) else { throw .truncated }
        return value
    }

    fileprivate mutating func sha256() throws(GateProtocol.Malformed) -> Digest {
        guard let value = digest() else { throw .truncated }
        return value
    }

    fileprivate mutating func flag(_ field: String) throws(GateProtocol.Malformed) -> Bool {
        let value = try u32()
        guard value <= 1 else { throw .badValue(field: field) }
        return value == 1
    }

    fileprivate mutating func address() throws(GateProtocol.Malformed) -> GateProtocol.ChunkAddress {
        .init(blob: try u32(), chunk: try u32())
    }

    fileprivate mutating func like() throws(GateProtocol.Malformed) -> GateProtocol.SnapshotLike {
        switch try u32() {
        case 0: .none
        case 1: .snapshot(try u64())
        case 2: .image(try sha256())
        default: throw .badValue(field: "like")
        }
    }

    fileprivate mutating func string() throws(GateProtocol.Malformed) -> String {
        guard let count = integer(UInt16.self), let bytes = take(Int(count)) else { throw .truncated }
        return String(decoding: bytes, as: UTF8.self)
    }

    fileprivate mutating func image() throws(GateProtocol.Malformed) -> GateProtocol.ImageInfo {
        let manifest = try sha256()
        let flags = try u32()
        guard flags <= 3 else { throw .badValue(field: "image flags") }
        let bootstrapSize = try u64()
        let path = try string()
        let count = try u32()
        guard count <= Limits.maxBlobsPerImage else { throw .badValue(field: "blob count") }
        var blobs: [GateProtocol.BlobInfo] = []
        for _ in 0..<count {
            let handle = try u32()
            let digest = try sha256()
            blobs.append(
                .init(
                    handle: handle, digest: digest, rawSize: try u64(), chunkCount: try u32(),
                    residentCount: try u32(), residentBytes: try u64(), graduated: try flag("graduated")))
        }
        return .init(
            manifest: manifest, mounted: flags & 1 == 1, tainted: flags & 2 == 2, bootstrapSize: bootstrapSize,
            path: path, blobs: blobs)
    }
}
