import ChunkModel
import HTTPTransfer
import OCISpec

/// Access traces in a registry: docs/formats/trace.md, "In a registry".
extension RegistryClient {
    /// Traces of one image that are looked at, the newest first, until one is good.
    private static var maxTraces: Int { 3 }
    /// Characters of a time that count.
    private static var maxTimeLength: Int { 40 }

    /// The annotation that says when a trace was attached: RFC 3339, UTC, whole seconds, so that text order is time order.
    package static let createdAnnotation = "org.opencontainers.image.created"

    /// The newest trace of an image that is good and fits it; nil when there is none. `reference` names the repository.
    /// When there are only bad ones, the error of the last is thrown. `attempts` as for `referrers`.
    package func trace(
        of image: Digest, blobs: [AccessTrace.Blob], in reference: Reference, attempts: Int? = nil,
        priority: TransferPriority = .onDemand
    ) async throws(RegistryError) -> (trace: AccessTrace, manifest: Descriptor)? {
        let listed = try await referrers(
            of: image, artifactType: AccessTrace.mediaType, in: reference, attempts: attempts, priority: priority)
        let newestFirst = listed.enumerated().sorted {
            (Self.time($1.element), $1.offset) < (Self.time($0.element), $0.offset)
        }
        var failure: RegistryError?
        for (_, descriptor) in newestFirst.prefix(Self.maxTraces) {
            do throws(RegistryError) {
                return (try await trace(descriptor, of: image, blobs, reference, priority), descriptor)
            } catch {
                if error.code == .cancelled { throw error }
                failure = error
            }
        }
        if let failure { throw failure }
        return nil
    }

    private static func time(_ descriptor: Descriptor) -> Substring {
        descriptor.annotations[createdAnnotation]?.prefix(maxTimeLength) ?? ""
    }

    private func trace(
        _ descriptor: Descriptor, of image: Digest, _ blobs: [AccessTrace.Blob], _ reference: Reference,
        _ priority: TransferPriority
    ) async throws(RegistryError) -> AccessTrace {
        let artifact = try await manifest(reference.byDigest(descriptor.digest))
        guard case .manifest(let manifest) = artifact.document, manifest.artifactType == AccessTrace.mediaType,
            manifest.subject?.digest == image, manifest.layers.count == 1,
            let layer = manifest.layers.first, layer.mediaType == AccessTrace.mediaType
        else {
            throw RegistryError(
                .invalidDocument, "artifact \(descriptor.digest) is listed as a trace of \(image) and is none")
        }
        let bytes = try await blob(layer, of: reference, limit: AccessTrace.maxBytes, priority: priority)
        do throws(OCISpecError) {
            let trace = try AccessTrace(decoding: bytes)
            try trace.check(image: image, blobs: blobs)
            return trace
        } catch { throw RegistryError(.invalidDocument, "artifact \(descriptor.digest): \(error.message)") }
    }
}
