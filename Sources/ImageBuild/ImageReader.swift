internal import ChunkModel
import Glibc
internal import HTTPTransfer
internal import Integrity
internal import LinuxSystem
internal import OCISpec
internal import RegistryClient
import Synchronization

/// Where an image is read from. What is returned is verified against its digest unless it says otherwise.
protocol ImageReader: Sendable {
    /// The image manifest for a platform.
    func manifest(_ platform: Platform) async throws -> (descriptor: Descriptor, manifest: Manifest, bytes: [UInt8])
    /// Small content whole, at most `limit` bytes.
    func content(_ descriptor: Descriptor, limit: Int) async throws -> [UInt8]
    /// A part of some content; not verified.
    func part(_ descriptor: Descriptor, _ range: Range<UInt64>) async throws -> [UInt8]
    /// Writes content to a new file.
    func fetch(
        _ descriptor: Descriptor, to path: String, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (UInt64) -> Void
    ) async throws
}

/// An image in a registry.
struct RegistryReader: ImageReader {
    let client: RegistryClient
    let reference: Reference

    func manifest(_ platform: Platform) async throws -> (descriptor: Descriptor, manifest: Manifest, bytes: [UInt8]) {
        try await wrapping { try await client.imageManifest(reference, platform: platform) }
    }

    func content(_ descriptor: Descriptor, limit: Int) async throws -> [UInt8] {
        try await wrapping { try await client.blob(descriptor, of: reference, limit: limit) }
    }

    func part(_ descriptor: Descriptor, _ range: Range<UInt64>) async throws -> [UInt8] {
        let bytes = Mutex<[UInt8]>([])
        try await wrapping {
            _ = try await client.blobRange(
                descriptor.digest, of: reference, range: range, totalSize: descriptor.size
            ) { piece in
                bytes.withLock { $0.append(contentsOf: piece) }
                return .continue
            }
        }
        return bytes.withLock { $0 }
    }

    func fetch(
        _ descriptor: Descriptor, to path: String, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (UInt64) -> Void
    ) async throws {
        let file = try File(path: path, flags: O_RDWR | O_CREAT | O_TRUNC)
        try await wrapping { try await client.download(descriptor, of: reference, to: file.descriptor) }
        progress(descriptor.size)
    }

    private func wrapping<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do { return try await body() } catch { throw registryFailure(error, reference) }
    }
}

/// A registry's failure as this module's error, with the reference.
func registryFailure(_ error: any Error, _ reference: Reference) -> ImageBuildError {
    let code = (error as? RegistryError)?.code
    let mine: ImageBuildError.Code =
        switch code {
        case .cancelled: .cancelled
        case .notFound, .noMatchingPlatform: .badSource
        case .digestMismatch, .sizeMismatch: .corruptSource
        default: .registry
        }
    return ImageBuildError(mine, reference.description, cause: error)
}
