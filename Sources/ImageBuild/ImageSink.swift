internal import ChunkModel
import Glibc
internal import LinuxSystem
internal import OCISpec
internal import RegistryClient

/// Where a built image goes.
enum ImageSink: Sendable {
    case layout(path: String, tag: String)
    case registry(RegistryClient, Reference)

    init(_ destination: ImageDestination, _ client: RegistryClient?) throws(ImageBuildError) {
        switch destination {
        case .layout(let path, let tag): self = .layout(path: path, tag: tag ?? Reference.defaultTag)
        case .registry(let reference):
            guard reference.digest == nil else {
                throw ImageBuildError(
                    .invalidArgument, "\(reference): a destination takes a tag; the digest follows from the content")
            }
            self = .registry(try required(client), reference)
        }
    }

    /// Stores blobs, config and, last, the manifest; returns its digest.
    func store(
        _ parts: ImageParts, _ cancellation: Cancellation, _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> Digest {
        switch self {
        case .layout(let path, let tag):
            return try await onThread("layout-write", cancellation) {
                try Self.store(parts, path, tag, cancellation, progress)
            }
        case .registry(let client, let reference):
            do {
                return try await Self.push(parts, client, reference, progress)
            } catch { throw registryFailure(error, reference) }
        }
    }

    private static func store(
        _ parts: ImageParts, _ path: String, _ tag: String, _ cancellation: Cancellation,
        _ progress: (BuildProgress) -> Void
    ) throws -> Digest {
        let writer = try LayoutWriter(path: path)
        let total = parts.blob?.storedSize ?? 0
        progress(BuildProgress(.store, 0, of: total))
        if let blob = parts.blob {
            try writer.put(file: blob.storedPath, digest: blob.storedDigest, size: blob.storedSize, cancellation)
            _ = try writer.put(parts.index)
        }
        _ = try writer.put(parts.bootstrap)
        _ = try writer.put(parts.config)
        let digest = try writer.put(parts.manifestBytes)
        let descriptor = Descriptor(
            mediaType: parts.manifest.mediaType, digest: digest, size: UInt64(parts.manifestBytes.count))
        try writer.commit(descriptor, tag: tag)
        progress(BuildProgress(.store, total, of: total))
        return digest
    }

    private static func push(
        _ parts: ImageParts, _ client: RegistryClient, _ reference: Reference,
        _ progress: (BuildProgress) -> Void
    ) async throws -> Digest {
        let total = parts.blob?.storedSize ?? 0
        progress(BuildProgress(.store, 0, of: total))
        if let blob = parts.blob {
            let file = try File(path: blob.storedPath, flags: O_RDONLY)
            _ = try await client.push(
                .file(descriptor: file.descriptor, offset: 0, length: Int64(blob.storedSize)),
                digest: blob.storedDigest,
                to: reference)
            withExtendedLifetime(file) {}
            progress(BuildProgress(.store, total, of: total))
            _ = try await client.push(
                .bytes(parts.index), digest: parts.manifest.layers[2].digest, to: reference)
        }
        _ = try await client.push(.bytes(parts.bootstrap), digest: parts.bootstrapDigest, to: reference)
        _ = try await client.push(.bytes(parts.config), digest: parts.manifest.config.digest, to: reference)
        return try await client.pushManifest(
            parts.manifestBytes, mediaType: parts.manifest.mediaType, to: reference)
    }
}
