internal import ChunkModel
import Glibc
internal import Integrity
internal import LinuxSystem
internal import OCISpec
internal import RegistryClient

/// Names in an OCI image layout (image-spec `image-layout.md`).
enum LayoutNames {
    static let version = Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)
    /// The annotation of `index.json` that holds a tag.
    static let reference = "org.opencontainers.image.ref.name"

    static func blob(_ root: String, _ digest: Digest) -> String { root + "/blobs/sha256/" + digest.hex }

    /// `index.json`; nil when there is none.
    static func index(_ root: String) throws(ImageBuildError) -> ImageIndex? {
        let path = root + "/index.json"
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try File(path: path, flags: O_RDONLY).contents(limit: Limits.maxManifestSize)
        } catch {
            if error.errno == ENOENT { return nil }
            throw ImageBuildError(.badSource, "cannot read an OCI layout", cause: error)
        }
        do throws(RegistryError) {
            return try OCIJSON.decode(ImageIndex.self, from: bytes)
        } catch { throw ImageBuildError(.badSource, path, cause: error) }
    }
}

/// An image in an OCI layout directory.
struct LayoutReader: ImageReader {
    let path: String
    let tag: String?

    func manifest(_ platform: Platform) async throws -> (descriptor: Descriptor, manifest: Manifest, bytes: [UInt8]) {
        var descriptor = try entry(platform)
        // An index may name one manifest a platform; an index of indexes is nothing a builder makes.
        for _ in 0..<2 {
            let bytes = try await content(descriptor, limit: Limits.maxManifestSize)
            switch try decode(bytes, descriptor) {
            case .manifest(let manifest): return (descriptor, manifest, bytes)
            case .index(let index):
                do throws(OCISpecError) {
                    descriptor = try index.select(platform)
                } catch { throw ImageBuildError(.badSource, "oci:\(path)", cause: error) }
            }
        }
        throw ImageBuildError(.unsupported, "oci:\(path) nests image indexes")
    }

    private func decode(_ bytes: [UInt8], _ descriptor: Descriptor) throws(ImageBuildError) -> ManifestDocument {
        do throws(RegistryError) {
            return try OCIJSON.document(bytes, mediaType: descriptor.mediaType).document
        } catch { throw ImageBuildError(.badSource, "oci:\(path), \(descriptor.digest)", cause: error) }
    }

    /// The entry of `index.json` for the tag.
    private func entry(_ platform: Platform) throws(ImageBuildError) -> Descriptor {
        guard let index = try LayoutNames.index(path) else {
            throw ImageBuildError(.badSource, "\(path) is no OCI layout: it has no index.json")
        }
        let found =
            tag.map { tag in index.manifests.filter { $0.annotations[LayoutNames.reference] == tag } }
            ?? index.manifests
        if found.count == 1 { return found[0] }
        let tags = index.manifests.compactMap { $0.annotations[LayoutNames.reference] }.prefix(20)
            .map { OCISpecError.quote($0) }.joined(separator: ", ")
        guard found.count > 1 else {
            throw ImageBuildError(.badSource, "oci:\(path) has no tag \(tag ?? ""); it has: \(tags)")
        }
        // Several manifests of one tag: one a platform.
        do throws(OCISpecError) {
            return try ImageIndex(manifests: found).select(platform)
        } catch {
            throw ImageBuildError(.badSource, "oci:\(path) has several images, name one: \(tags)", cause: error)
        }
    }

    func content(_ descriptor: Descriptor, limit: Int) async throws -> [UInt8] {
        guard descriptor.size <= UInt64(limit) else {
            throw ImageBuildError(
                .limitExceeded, "\(descriptor.digest) in oci:\(path) has \(descriptor.size) bytes, limit \(limit)")
        }
        return try await onThread("layout-read", Cancellation()) {
            let file = try File(path: LayoutNames.blob(path, descriptor.digest), flags: O_RDONLY)
            let bytes = try file.contents(limit: limit)
            let found = SHA256.hash(bytes)
            guard bytes.count == Int(descriptor.size), found == descriptor.digest else {
                throw ImageBuildError(
                    .corruptSource,
                    "oci:\(path): expected \(descriptor.size) bytes with \(descriptor.digest), found \(bytes.count) with \(found)"
                )
            }
            return bytes
        }
    }

    func part(_ descriptor: Descriptor, _ range: Range<UInt64>) async throws -> [UInt8] {
        try await onThread("layout-read", Cancellation()) {
            let file = try File(path: LayoutNames.blob(path, descriptor.digest), flags: O_RDONLY)
            var bytes = [UInt8](repeating: 0, count: range.count)
            let count = try bytes.withUnsafeMutableBytes { try file.readAll(into: $0, at: range.lowerBound) }
            guard count == range.count else {
                throw ImageBuildError(
                    .corruptSource, "\(descriptor.digest) in oci:\(path) ends before \(range.upperBound)")
            }
            return bytes
        }
    }

    func fetch(
        _ descriptor: Descriptor, to target: String, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (UInt64) -> Void
    ) async throws {
        try await onThread("layout-copy", cancellation) {
            try FileTransfer.copy(
                from: LayoutNames.blob(path, descriptor.digest), to: target, expecting: descriptor.digest,
                size: descriptor.size, cancellation, progress)
        }
    }
}

/// Writes an OCI layout. Nothing is visible before `commit`. Blocks: only from `onThread`.
struct LayoutWriter {
    let path: String

    /// Makes the directory and what must be in it; an existing layout is added to.
    init(path: String) throws {
        self.path = path
        for directory in [path, path + "/blobs", path + "/blobs/sha256"] where !Directory.exists(directory) {
            try Directory.create(directory, mode: 0o755)
        }
        try Directory.replaceFile(path + "/oci-layout", LayoutNames.version, mode: 0o644)
    }

    func put(_ bytes: [UInt8]) throws -> Digest {
        let digest = SHA256.hash(bytes)
        try Directory.replaceFile(LayoutNames.blob(path, digest), bytes, mode: 0o644)
        return digest
    }

    /// Moves a file of our own in, or copies it from another file system.
    func put(file: String, digest: Digest, size: UInt64, _ cancellation: Cancellation) throws {
        let target = LayoutNames.blob(path, digest)
        chmod(file, 0o644)
        if rename(file, target) == 0 { return }
        guard errno == EXDEV else { throw SystemError(errno, "rename", "\(file) to \(target)") }
        let temporary = target + ".new"
        try FileTransfer.copy(from: file, to: temporary, expecting: digest, size: size, cancellation) { _ in }
        chmod(temporary, 0o644)
        try Directory.rename(temporary, to: target)
    }

    /// Names a manifest; it replaces what had the tag before, other tags stay.
    func commit(_ manifest: Descriptor, tag: String) throws {
        var index = try LayoutNames.index(path) ?? ImageIndex(manifests: [])
        index.manifests.removeAll { $0.annotations[LayoutNames.reference] == tag }
        var entry = manifest
        entry.annotations[LayoutNames.reference] = tag
        index.manifests.append(entry)
        try Directory.replaceFile(path + "/index.json", try OCIJSON.encode(index), mode: 0o644)
    }
}
