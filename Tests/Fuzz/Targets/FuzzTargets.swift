import ChunkModel
import ErofsFormat
import FoundationEssentials
import Glibc
import OCISpec
import Snapshotter
import Zstandard

/// One parser of foreign bytes. The promise under test is the same for all: whatever the bytes, it returns a value or
/// throws its error; what it returns keeps the invariants it states. A trap, a hang, or a broken invariant is a finding.
struct FuzzTarget: Sendable {
    let name: String
    let run: @Sendable ([UInt8]) -> Void
}

let fuzzTargets: [FuzzTarget] =
    [
        FuzzTarget(name: "chunk-index", run: fuzzChunkIndex),
        FuzzTarget(name: "residency-map", run: fuzzResidencyMap),
        FuzzTarget(name: "gate-request", run: fuzzGateRequest),
        FuzzTarget(name: "gate-event", run: fuzzGateEvent),
        FuzzTarget(name: "bootstrap", run: fuzzBootstrap),
        FuzzTarget(name: "reference", run: fuzzReference),
        FuzzTarget(name: "headers", run: fuzzHeaders),
        FuzzTarget(name: "cgroup", run: fuzzCgroup),
        FuzzTarget(name: "manifest", run: fuzzManifest),
        FuzzTarget(name: "seek-table", run: fuzzSeekTable),
        FuzzTarget(name: "zstd-frame", run: fuzzFrame),
        FuzzTarget(name: "snapshot-filter", run: fuzzSnapshotFilter),
        FuzzTarget(name: "mirror-request", run: fuzzMirrorRequest),
    ] + peerFuzzTargets + gossipFuzzTargets + traceFuzzTargets

/// Ends the program where libFuzzer reports it as a crash.
func require(_ condition: Bool, _ what: @autoclosure () -> String) {
    if !condition { fatalError(what()) }
}

@Sendable private func fuzzChunkIndex(_ bytes: [UInt8]) {
    guard let index = try? ChunkIndex(caibx: bytes) else { return }
    require(index.count <= Limits.maxChunksPerBlob, "more chunks than the limit")
    var previous: UInt64 = 0
    for number in 0..<index.count {
        let entry = index[number]
        require(entry.range.lowerBound == previous, "a gap between chunks")
        require((1...Limits.maxChunkSize).contains(entry.size), "a chunk of \(entry.size) bytes")
        require(index.chunks(covering: entry.range) == number..<number + 1, "a range finds other chunks")
        previous = entry.range.upperBound
    }
    require(index.rawSize == previous, "the size is not the last end")
    let boundaries = ChunkBoundaries(index)
    for number in 0..<index.count {
        require(boundaries.range(of: number) == index[number].range, "boundaries differ from the index")
    }
    // The chunker's sizes are advisory and not kept; all else must come back.
    let again = index.caibx(sizes: (min: 1, average: 2, max: 3))
    require((try? ChunkIndex(caibx: again)) == index, "writing and reading changes the index")
}

@Sendable private func fuzzResidencyMap(_ bytes: [UInt8]) {
    let zero = [UInt8](repeating: 0, count: Digest.byteCount)
    guard let digest = Digest(rawBytes: zero), let first = bytes.first else { return }
    let chunkCount = Int(first)
    let key = ResidencyMap.Key(blob: digest, index: digest)
    let rawSize = UInt64(chunkCount) * 4096
    // The CRC would keep the fuzzer out: it is put right in every second input, so that what lies behind is reached.
    var file = Array(bytes.dropFirst())
    if file.count % 2 == 0 { repairCRC(&file, chunkCount: chunkCount) }
    let decoded = try? ResidencyMap.decode(file, key: key, chunkCount: chunkCount, rawSize: rawSize)
    guard let (map, _) = decoded else { return }
    require(map.chunkCount == chunkCount && map.key == key, "a map of something else")
    require(map.residentCount <= chunkCount, "more resident chunks than chunks")
    let bank = map.encodeBank()
    require(bank.count == ResidencyMap.bankSize(chunkCount: chunkCount), "a bank of another size")
    let both = bank + [UInt8](repeating: 0, count: bank.count)
    let again = try? ResidencyMap.decode(both, key: key, chunkCount: chunkCount, rawSize: rawSize)
    require(again?.map == map && again?.condition == .good, "writing and reading changes the map")
}

private func repairCRC(_ file: inout [UInt8], chunkCount: Int) {
    let size = ResidencyMap.bankSize(chunkCount: chunkCount)
    guard file.count >= 16 else { return }
    if file.count < size { file += [UInt8](repeating: 0, count: size - file.count) }
    let length = (0..<4).reduce(0) { $0 | Int(file[12 + $1]) << (8 * $1) }
    guard length >= 16, length + 4 <= size else { return }
    let sum = CRC32C.checksum(file[..<length])
    for byte in 0..<4 { file[length + byte] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * byte)) }
}

@Sendable private func fuzzGateRequest(_ bytes: [UInt8]) {
    guard let (request, number) = try? GateProtocol.decodeRequest(bytes) else { return }
    let again = try? GateProtocol.decodeRequest(GateProtocol.encode(request, number: number))
    require(again?.request == request && again?.number == number, "writing and reading changes \(request)")
}

@Sendable private func fuzzGateEvent(_ bytes: [UInt8]) {
    guard let (event, number) = try? GateProtocol.decodeEvent(bytes) else { return }
    let frame = GateProtocol.encode(event, number: number)
    guard let again = try? GateProtocol.decodeEvent(frame) else { fatalError("\(event) cannot be read again") }
    // Text is cut at 1,024 bytes, and repaired where it is no UTF-8, so only the second pass must be stable.
    require(GateProtocol.encode(again.event, number: number) == frame, "writing and reading changes \(event)")
}

@Sendable private func fuzzBootstrap(_ bytes: [UInt8]) {
    // The first byte chooses the devices, so that both good and bad extents are found.
    guard let first = bytes.first else { return }
    let devices = [UInt64](repeating: UInt64(first) << 20, count: Int(first % 3))
    var image = Array(bytes.dropFirst())
    // Whole blocks, or nothing behind the superblock is looked at.
    let rest = image.count % Limits.blockSize
    if rest != 0 { image += [UInt8](repeating: 0, count: Limits.blockSize - rest) }
    // The checksum would keep the fuzzer out, as above.
    if image.count >= Limits.blockSize, first % 2 == 0 {
        try? BootstrapFinisher.setUUID([UInt8](repeating: 7, count: 16), &image)
    }
    let summary = image.withUnsafeBytes { try? BootstrapValidator.validate($0, devices: devices) }
    guard let summary else { return }
    require(summary.directories > 0, "an image without a root directory")
    require(summary.inodes <= image.count / 32, "more inodes than fit")
    var copy = image
    if (try? BootstrapFinisher.normalise(&copy, devices: devices)) != nil {
        let again = copy.withUnsafeBytes { try? BootstrapValidator.validate($0, devices: devices) }
        require(again == summary, "normalising changes what is in the image")
    }
}

@Sendable private func fuzzReference(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let reference = try? Reference(text) {
        require((try? Reference("\(reference)")) == reference, "\(reference) reads as another reference")
    }
    if let digest = Digest(text) { require("\(digest)" == text, "a digest has two texts") }
    if let url = try? HTTPURL(text) { require((try? HTTPURL("\(url)")) == url, "\(url) reads as another URL") }
    _ = IPAddress(text)
    _ = try? Platform(text)
}

@Sendable private func fuzzCgroup(_ bytes: [UInt8]) {
    guard let id = ContainerCgroup.container(String(decoding: bytes, as: UTF8.self)) else { return }
    require(!id.isEmpty && id.count <= ContainerCgroup.maxLength, "an id of \(id.count) characters")
    require(!id.contains("/") && !id.contains("\n"), "an id of more than one component")
}

@Sendable private func fuzzHeaders(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let range = ContentRange(text), let part = range.range {
        require(!part.isEmpty && part.upperBound <= range.totalSize ?? .max, "a range outside its whole")
    }
    if let delay = RetryAfter.delay(text, now: 1_700_000_000, limit: .seconds(60)) {
        require(delay >= .zero && delay <= .seconds(60), "a delay of \(delay)")
    }
    _ = HTTPDate.seconds(text)
    let challenges = AuthChallenge.parse([text, text])
    require(challenges.count <= OCILimits.maxChallenges, "\(challenges.count) challenges")
}

@Sendable private func fuzzSeekTable(_ bytes: [UInt8]) {
    guard let table = try? SeekTable(decoding: bytes) else { return }
    // Two bits of the footer mean nothing, so the bytes need not be the same.
    require((try? SeekTable(decoding: table.encoded())) == table, "writing and reading changes the table")
    var end: UInt64 = 0
    for number in table.frames.indices {
        let range = table.storedRange(ofFrame: number)
        require(range.lowerBound == end && !range.isEmpty, "frame \(number) lies at \(range)")
        end = range.upperBound
    }
    require(table.blobSize == end + UInt64(bytes.count), "frames and table do not fill the blob")
}

@Sendable private func fuzzManifest(_ bytes: [UInt8]) {
    // What the agent takes for an image, the gate's own reader, which knows no JSON library, must see as the same one.
    let digests = try? ManifestDigests(manifest: bytes)
    let data = Data(bytes)
    if let manifest = try? JSONDecoder().decode(Manifest.self, from: data) {
        if let image = try? ChunkdImage(manifest: manifest, bytes: bytes) {
            require(image.blobs.count <= Limits.maxBlobsPerImage, "\(image.blobs.count) blobs")
            require(digests?.bootstrap == image.bootstrap.digest, "the gate sees another bootstrap")
            let keys = image.blobs.map { ResidencyMap.Key(blob: $0.descriptor.digest, index: $0.index.digest) }
            require(digests?.blobs == keys, "the gate sees other blobs")
            for blob in image.blobs { require(blob.rawSize <= ChunkdImage.maxRawSize, "a blob of \(blob.rawSize)") }
        }
        guard let text = try? JSONEncoder().encode(manifest) else { fatalError("a manifest cannot be written") }
        require((try? JSONDecoder().decode(Manifest.self, from: text)) == manifest, "writing changes the manifest")
    }
    if let index = try? JSONDecoder().decode(ImageIndex.self, from: data) { _ = try? index.select(.current) }
}

@Sendable private func fuzzFrame(_ bytes: [UInt8]) {
    guard let first = bytes.first, let decompressor = try? FrameDecompressor() else { return }
    var output = [UInt8](repeating: 0, count: Int(first) * 64)
    bytes.dropFirst().withUnsafeBytes { frame in
        output.withUnsafeMutableBytes { try? decompressor.decompress(frame, into: $0) }
    }
    guard var stream = try? StreamDecompressor(limit: 1 << 20) else { return }
    var total: UInt64 = 0
    bytes.withUnsafeBytes { try? stream.feed($0) { total += UInt64($0.count) } }
    require(total <= 1 << 20, "\(total) bytes of output, limit 1 MiB")
}

@Sendable private func fuzzSnapshotFilter(_ bytes: [UInt8]) {
    guard let filter = try? SnapshotFilter(String(decoding: bytes, as: UTF8.self)) else { return }
    var paths: [[String]] = []
    _ = filter.matches { path in
        paths.append(path)
        return path.joined(separator: ".")
    }
    require(!paths.isEmpty, "a filter that looks at nothing")
    require(paths.allSatisfy { !$0.isEmpty }, "a path without a name")
    require(bytes.count <= SnapshotFilter.maxLength, "a filter of \(bytes.count) bytes")
}
