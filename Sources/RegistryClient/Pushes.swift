import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec

/// Where the bytes of a pushed blob come from.
package enum BlobSource: Sendable {
    case bytes([UInt8])
    /// `length` bytes from `offset` of an open file that outlives the call.
    case file(descriptor: Int32, offset: Int64, length: Int64)

    var body: TransferRequest.Body {
        switch self {
        case .bytes(let bytes): .bytes(bytes)
        case .file(let descriptor, let offset, let length):
            .file(descriptor: descriptor, offset: offset, length: length)
        }
    }
}

extension RegistryClient {
    /// Whether the repository has the blob. Asks the registry itself, not a mirror.
    package func blobExists(_ digest: Digest, in reference: Reference) async throws(RegistryError) -> Bool {
        let call = try pushCall(reference, .head, "blobs/\(digest)")
        return try await document(call, attempts: configuration.retry.maxAttempts, limit: 0, expected: [200, 404])
            .status == 200
    }

    /// Pushes a blob unless it is there; true when its bytes were sent. `mountFrom` names a repository of the same
    /// registry that may have it (distribution spec "Mounting a blob from another repository").
    package func push(
        _ source: BlobSource, digest: Digest, to reference: Reference, mountFrom: String? = nil
    ) async throws(RegistryError) -> Bool {
        if try await blobExists(digest, in: reference) { return false }
        var query = ""
        if let mountFrom {
            query = "?mount=\(HTTPURL.encodeQueryValue(digest.description))&from=\(HTTPURL.encodeQueryValue(mountFrom))"
        }
        var open = try pushCall(reference, .post, "blobs/uploads/" + query)
        if let mountFrom { open.scopes = (open.scopes + ["repository:\(mountFrom):pull"]).sorted() }
        return try await retrying(attempts: configuration.retry.maxAttempts) { () throws(CallFailure) in
            try await upload(source, digest: digest, to: reference, open: open, mayMount: mountFrom != nil)
        }
    }

    /// POST for an upload session, PUT of the whole blob into it (distribution spec "POST then PUT"). Each attempt
    /// takes a new session.
    private func upload(
        _ source: BlobSource, digest: Digest, to reference: Reference, open: RegistryCall, mayMount: Bool
    ) async throws(CallFailure) -> Bool {
        let session = try await perform(open, sink: Self.errorText)
        if session.status == 201 && mayMount { return false }
        guard session.status == 202 else { throw failure(open, statusError(open, session)) }
        guard let location = session.result.head.first("Location") else {
            throw failure(
                open, RegistryError(.malformedResponse, "\(open.endpoint.origin): upload session without Location"))
        }
        // The same rules as for a redirect: a Location is foreign input, and credentials stay on the registry's origin.
        var chain = open.chain
        do throws(RegistryError) {
            try chain.follow(try Self.uploadTarget(session.url, location, digest))
        } catch {
            throw failure(open, error)
        }
        var call = open
        call.method = .put
        call.headers = [("Content-Type", "application/octet-stream")]
        call.body = source.body
        call.bufferSize = .blob
        call.total = nil
        call.scopes = ["repository:\(reference.repository):pull,push"]
        call.chain = chain
        let done = try await perform(call, sink: Self.errorText)
        guard done.status == 201 else { throw failure(call, statusError(call, done)) }
        return true
    }

    /// The session's URL with the digest added, as text.
    private static func uploadTarget(
        _ base: HTTPURL, _ location: String, _ digest: Digest
    ) throws(RegistryError) -> String {
        do throws(OCISpecError) {
            let url = try base.resolving(location)
            let separator = url.target.contains("?") ? "&" : "?"
            return url.description + separator + "digest=" + HTTPURL.encodeQueryValue(digest.description)
        } catch {
            throw RegistryError(.malformedResponse, "upload session: \(error.message)")
        }
    }

    /// Puts a manifest or index at the reference's tag, or at its own digest when the reference has no tag; returns the
    /// digest of the bytes.
    package func pushManifest(
        _ bytes: [UInt8], mediaType: String, to reference: Reference
    ) async throws(RegistryError) -> Digest {
        try await putManifest(bytes, mediaType: mediaType, to: reference).digest
    }

    /// As `pushManifest`, with the head of the registry's answer.
    func putManifest(
        _ bytes: [UInt8], mediaType: String, to reference: Reference
    ) async throws(RegistryError) -> (digest: Digest, head: ResponseHead) {
        let digest = SHA256.hash(bytes)
        if let expected = reference.digest, expected != digest {
            throw RegistryError(.digestMismatch, "manifest hashes to \(digest), the reference says \(expected)")
        }
        let name = reference.tag ?? (reference.digest == nil ? Reference.defaultTag : digest.description)
        var call = try pushCall(reference, .put, "manifests/\(name)")
        call.headers = [("Content-Type", mediaType)]
        call.body = .bytes(bytes)
        let result = try await document(
            call, attempts: configuration.retry.maxAttempts, limit: 65_536, expected: [200, 201])
        if let said = result.result.head.first("Docker-Content-Digest"), Digest(said) != digest {
            throw RegistryError(
                .digestMismatch,
                "pushed manifest \(digest), the registry says it has \(OCISpecError.quote(said))")
        }
        return (digest, result.result.head)
    }

    private static var errorText: TransferSink {
        TransferSink(head: { _ in .collect(limit: 16_384, truncating: true) }, body: { _ in .stop })
    }

    private func pushCall(
        _ reference: Reference, _ method: TransferRequest.Method, _ target: String
    ) throws(RegistryError) -> RegistryCall {
        let endpoint = try configuration.origin(of: reference.registry)
        guard let url = endpoint.url("\(reference.repository)/\(target)") else {
            throw RegistryError(.configuration, "no URL for \(OCISpecError.quote(target))")
        }
        return RegistryCall(
            method: method, endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
            scopes: ["repository:\(reference.repository):pull,push"], operation: .upload)
    }
}
