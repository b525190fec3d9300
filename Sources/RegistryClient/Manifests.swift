import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec

/// A manifest or index as the registry keeps it, verified against its digest.
package struct FetchedManifest: Sendable {
    /// Media type, digest and size; the digest is computed from `bytes`, never taken from a header.
    package let descriptor: Descriptor
    package let bytes: [UInt8]
    package let document: ManifestDocument
}

extension RegistryClient {
    /// What the registry says the reference stands for now: HEAD, and GET where HEAD is not answered in full.
    package func resolve(_ reference: Reference) async throws(RegistryError) -> Descriptor {
        try await overEndpoints(reference.registry) { (endpoint, attempts) throws(RegistryError) in
            if let found = try await head(reference, endpoint, attempts: attempts) { return found }
            return try await fetchManifest(reference, endpoint, attempts: attempts).descriptor
        }
    }

    /// The descriptor that HEAD gives, nil when it tells too little or is not allowed there.
    private func head(
        _ reference: Reference, _ endpoint: Endpoint, attempts: Int
    ) async throws(RegistryError) -> Descriptor? {
        let head: ResponseHead
        do throws(RegistryError) {
            let call = try manifestCall(reference, endpoint, .head)
            head = try await document(call, attempts: attempts, limit: 0).result.head
        } catch {
            if error.code == .unexpectedStatus { return nil }
            throw error
        }
        guard let digest = head.first("Docker-Content-Digest").flatMap({ Digest($0) }),
            let type = head.first("Content-Type").flatMap({ MediaTypes.essence(of: $0) }),
            MediaTypes.acceptedManifests.contains(type), let size = head.contentLength,
            (1...UInt64(Limits.maxManifestSize)).contains(size)
        else { return nil }
        if let expected = reference.digest, expected != digest {
            throw RegistryError(.digestMismatch, "\(reference): the registry answers with \(digest)")
        }
        return Descriptor(mediaType: type, digest: digest, size: size)
    }

    /// The manifest or index a reference stands for, verified.
    package func manifest(_ reference: Reference) async throws(RegistryError) -> FetchedManifest {
        try await overEndpoints(reference.registry) { (endpoint, attempts) throws(RegistryError) in
            try await fetchManifest(reference, endpoint, attempts: attempts)
        }
    }

    /// The image manifest for a platform: as `manifest`, following one image index. A plain manifest is taken as it is,
    /// whatever its platform.
    package func imageManifest(
        _ reference: Reference, platform: Platform
    ) async throws(RegistryError) -> (descriptor: Descriptor, manifest: Manifest, bytes: [UInt8]) {
        var fetched = try await manifest(reference)
        if case .index(let index) = fetched.document {
            let chosen: Descriptor
            do throws(OCISpecError) {
                chosen = try index.select(platform)
            } catch {
                throw RegistryError(.noMatchingPlatform, "\(reference): \(error.message)")
            }
            fetched = try await manifest(reference.pinned(to: chosen.digest))
        }
        guard case .manifest(let manifest) = fetched.document else {
            throw RegistryError(.invalidDocument, "\(reference): an image index inside an image index")
        }
        return (fetched.descriptor, manifest, fetched.bytes)
    }

    func manifestCall(
        _ reference: Reference, _ endpoint: Endpoint, _ method: TransferRequest.Method
    ) throws(RegistryError) -> RegistryCall {
        let repository = endpoint.repository(reference.repository)
        guard let url = endpoint.url("\(repository)/manifests/\(reference.target)") else {
            throw RegistryError(.configuration, "no URL for \(reference)")
        }
        return RegistryCall(
            method: method, endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
            headers: [("Accept", MediaTypes.acceptedManifests.joined(separator: ", "))],
            scopes: ["repository:\(repository):pull"], operation: .manifest)
    }

    func fetchManifest(
        _ reference: Reference, _ endpoint: Endpoint, attempts: Int
    ) async throws(RegistryError) -> FetchedManifest {
        let call = try manifestCall(reference, endpoint, .get)
        let result = try await document(call, attempts: attempts, limit: Limits.maxManifestSize).result
        let digest = SHA256.hash(result.body)
        if let expected = reference.digest, expected != digest {
            throw RegistryError(.digestMismatch, "manifest of \(reference) hashes to \(digest)")
        }
        // Of a tag nothing but the header says what the registry means to send; for a digest it adds nothing.
        if let said = result.head.first("Docker-Content-Digest"), Digest(said) != digest {
            throw RegistryError(
                .digestMismatch,
                "manifest of \(reference) hashes to \(digest), the registry says \(OCISpecError.quote(said))")
        }
        let type = result.head.first("Content-Type").flatMap { MediaTypes.essence(of: $0) }
        let known = type.flatMap { MediaTypes.acceptedManifests.contains($0) ? $0 : nil }
        let (document, mediaType) = try OCIJSON.document(result.body, mediaType: known)
        return FetchedManifest(
            descriptor: Descriptor(mediaType: mediaType, digest: digest, size: UInt64(result.body.count)),
            bytes: result.body, document: document)
    }

    // MARK: Sizes

    /// Bytes of a blob as the registry has it; `unexpectedStatus` when it does not say. Who gets an answer may pull it.
    package func blobSize(_ digest: Digest, of reference: Reference) async throws(RegistryError) -> UInt64 {
        try await overEndpoints(reference.registry) { (endpoint, attempts) throws(RegistryError) in
            let repository = endpoint.repository(reference.repository)
            guard let url = endpoint.url("\(repository)/blobs/\(digest)") else {
                throw RegistryError(.configuration, "no URL for blob \(digest) of \(reference.name)")
            }
            let call = RegistryCall(
                method: .head, endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
                scopes: ["repository:\(repository):pull"], operation: .blob)
            let head = try await document(call, attempts: attempts, limit: 0).result.head
            guard let size = head.contentLength else {
                throw RegistryError(.unexpectedStatus, "\(endpoint.origin) does not say how long blob \(digest) is")
            }
            return size
        }
    }

    // MARK: Tags and reachability

    private struct TagList: Decodable { let tags: [String]? }

    /// Tags in one page, and pages, that are asked for.
    private static var tagPageSize: Int { 200 }
    private static var maxTagPages: Int { 100 }

    /// The repository's tags in the registry's order, at most `limit`. Follows `Link: rel="next"`.
    package func tags(of reference: Reference, limit: Int = 1000) async throws(RegistryError) -> [String] {
        let endpoint = try configuration.origin(of: reference.registry)
        let path = "\(reference.repository)/tags/list"
        var out: [String] = []
        var next = endpoint.url("\(path)?n=\(min(limit, Self.tagPageSize))")
        for _ in 0..<Self.maxTagPages {
            guard let url = next, out.count < limit else { break }
            let call = RegistryCall(
                endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
                scopes: ["repository:\(reference.repository):pull"], operation: .tags)
            let result = try await document(
                call, attempts: configuration.retry.maxAttempts, limit: Limits.maxManifestSize)
            let list = try OCIJSON.decode(TagList.self, from: result.result.body)
            out += (list.tags ?? []).filter { Reference.isTag($0) }
            next = Self.nextPage(result.result.head, url)
            // Pages are the endpoint's own business; a link elsewhere would be a redirect in disguise.
            if next?.origin != endpoint.origin { next = nil }
        }
        return Array(out.prefix(limit))
    }

    /// The target of `Link: <URL>; rel="next"` (RFC 8288), nil without one.
    static func nextPage(_ head: ResponseHead, _ url: HTTPURL) -> HTTPURL? {
        guard let link = head.first("Link"), link.contains("rel=\"next\"") || link.contains("rel=next"),
            let open = link.firstIndex(of: "<"), let close = link[open...].firstIndex(of: ">")
        else { return nil }
        return try? url.resolving(link[link.index(after: open)..<close])
    }

    /// Asks `GET /v2/` of the registry itself, with authentication: for diagnosis.
    package func ping(registry: String) async throws(RegistryError) {
        let endpoint = try configuration.origin(of: registry)
        guard let url = endpoint.url("") else { throw RegistryError(.configuration, "no URL for \(registry)") }
        let call = RegistryCall(
            endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin), scopes: [],
            operation: .ping)
        _ = try await document(call, attempts: 1, limit: 65_536)
    }
}
