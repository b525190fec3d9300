internal import ChunkModel
internal import ErofsFormat
import Glibc
internal import Integrity
internal import LinuxSystem
internal import OCISpec

/// Bootstrap and raw blob of a tree, as mkfs.erofs makes them and chunkd finishes them. Blocks: only from `onThread`.
struct ErofsImage: Sendable {
    /// Normalised; without UUID until `sealed`.
    var bootstrap: [UInt8]
    /// The raw blob; nil when the tree has no file data.
    let blobPath: String?
    /// Bytes of the raw blob.
    let rawSize: UInt64
    let summary: BootstrapSummary
    /// Where files' data lies.
    let runs: [DataRun]

    /// Raw sizes of the devices, as the bootstrap names them.
    var devices: [UInt64] { blobPath == nil ? [] : [rawSize] }

    /// Formats `tree`. The progress is the blob's growth towards the size of all files.
    static func make(
        tree: String, in directory: BuildDirectory, chunkSize: Int, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) throws -> ErofsImage {
        guard chunkSize.nonzeroBitCount == 1, (Limits.blockSize...1 << 30).contains(chunkSize) else {
            throw ImageBuildError(
                .invalidArgument, "EROFS chunk size \(chunkSize): expected a power of two from 4096 to 1 GiB")
        }
        let survey = try TreeWalk.survey(tree, cancellation)
        do {
            return try make(tree, survey.fileBytes, in: directory, chunkSize, cancellation, progress)
        } catch let error as ImageBuildError where [.tool, .invalidImage].contains(error.code) {
            // Such a name makes mkfs.erofs fail on a file that is not there, or repeat another's name.
            guard let name = survey.longName else { throw error }
            throw ImageBuildError(
                .unsupported,
                "this mkfs.erofs cannot store names of 255 bytes; shorten \(OCISpecError.quote(name, limit: 400))",
                cause: error)
        }
    }

    private static func make(
        _ tree: String, _ total: UInt64, in directory: BuildDirectory, _ chunkSize: Int, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) throws -> ErofsImage {
        let blob = directory.appending("blob")
        let target = directory.appending("bootstrap")
        do {
            let ticker = try Ticker { progress(BuildProgress(.format, min(total, size(of: blob)), of: total)) }
            defer { ticker.stop() }
            try mkfs(["--chunksize=\(chunkSize)", "--blobdev=\(blob)", target, tree], cancellation)
        }
        progress(BuildProgress(.format, total, of: total))
        let rawSize = size(of: blob)
        guard rawSize <= UInt64(Limits.maxChunksPerBlob) * UInt64(Limits.maxChunkSize) else {
            throw ImageBuildError(.limitExceeded, "the tree's data has \(rawSize) bytes, more than one blob may have")
        }
        let hasData = rawSize > 0
        // A device that nothing lies on would have to be mounted, marked and served: without data there is none.
        if !hasData { try mkfs([target, tree], cancellation) }
        var bootstrap = try File(path: target, flags: O_RDONLY).contents(limit: Limits.maxBootstrapSize)
        let devices = hasData ? [rawSize] : []
        do throws(ErofsError) {
            try BootstrapFinisher.normalise(&bootstrap, devices: devices)
        } catch {
            throw ImageBuildError(.invalidImage, "what mkfs.erofs made of this tree cannot be mounted", cause: error)
        }
        let (summary, runs) = try bootstrap.withUnsafeBytes { try BootstrapValidator.survey($0, devices: devices) }
        return ErofsImage(
            bootstrap: bootstrap, blobPath: hasData ? blob : nil, rawSize: rawSize, summary: summary, runs: runs)
    }

    /// Where files of `size` bytes or more begin and end in the raw blob, ascending, in whole blocks.
    func edges(ofFilesFrom size: Int) -> [UInt64] {
        let block = UInt64(Limits.blockSize)
        var edges: Set<UInt64> = []
        for run in runs where run.device == 1 && run.range.count >= size {
            edges.insert(run.range.lowerBound)
            edges.insert((run.range.upperBound + block - 1) / block * block)
        }
        edges.remove(0)
        return edges.sorted()
    }

    private static func mkfs(_ arguments: [String], _ cancellation: Cancellation) throws {
        // Extended inodes: a compact one has no mtime of its own. The UUID is set by `sealed`.
        let fixed = ["-d1", "--quiet", "-E", "force-inode-extended", "-U", "00000000-0000-0000-0000-000000000000"]
        try Tool.run("mkfs.erofs", fixed + arguments, package: "erofs-utils", cancellation)
    }

    /// The bootstrap with a UUID that stands for its content and its blob's: two mounts of one image are the same
    /// volume to overlayfs, two images never are.
    func sealed(blob: Digest?) throws -> [UInt8] {
        var hasher = SHA256()
        bootstrap.withUnsafeBytes { hasher.update($0) }
        (blob?.rawBytes ?? []).withUnsafeBytes { hasher.update($0) }
        var uuid = Array(hasher.finalize().rawBytes.prefix(16))
        uuid[6] = uuid[6] & 0x0F | 0x80  // version 8 (RFC 9562 section 5.8): of our own making
        uuid[8] = uuid[8] & 0x3F | 0x80
        var image = bootstrap
        try BootstrapFinisher.setUUID(uuid, &image)
        return image
    }

    /// Bytes of a file that may not be there yet.
    private static func size(of path: String) -> UInt64 {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_size) : 0
    }
}

/// Calls something now and then while a program runs that tells nothing about its progress.
final class Ticker: Sendable {
    private static let interval = 200  // milliseconds: often enough for people
    private let ended = Monitor(false)
    private let thread: Thread

    init(_ tick: @escaping @Sendable () -> Void) throws(SystemError) {
        let ended = ended
        thread = try Thread.start("build-ticker") {
            tick()
            while ended.wait(until: Monotonic.now.adding(milliseconds: Self.interval), { $0 ? true : nil }) == nil {
                tick()
            }
        }
    }

    /// Ends the thread and returns when it has ended: no call comes after. Call once.
    func stop() {
        ended.update { $0 = true }
        thread.join()
    }
}
