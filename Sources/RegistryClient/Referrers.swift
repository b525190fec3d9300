import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec
import Synchronization

/// What points to a manifest as its subject (distribution spec "Listing Referrers", "Pushing Manifests with Subject"):
/// the registry's list of it, or, where a registry keeps none, the index under the tag `sha256-HEX`.
extension RegistryClient {
    /// How long a repository is not asked again for a list its registry does not keep.
    private static var withoutReferrersLifetime: Duration { .seconds(3600) }
    /// Repositories of which that is remembered.
    private static var maxWithoutReferrers: Int { 1024 }
    /// Pages of a list that are read: each has at most `Limits.maxManifestSize` bytes.
    private static var maxReferrerPages: Int { 4 }
    /// Statuses of registries that know nothing of the list. 404 is the specification's.
    private static var noSuchAPI: Set<Int> { [400, 404, 405] }

    /// The tag that stands for the list where a registry keeps none (distribution spec "Referrers Tag Schema").
    package static func referrersTag(of subject: Digest) -> String { "sha256-" + subject.hex }

    /// Descriptors of the artifacts of one type that have this subject, as listed; empty when there are none. Nothing that
    /// they say is verified. `attempts` nil: as many as configured.
    package func referrers(
        of subject: Digest, artifactType: String, in reference: Reference, attempts wanted: Int? = nil,
        priority: TransferPriority = .onDemand
    ) async throws(RegistryError) -> [Descriptor] {
        let found = try await overEndpoints(reference.registry) { (endpoint, most) throws(RegistryError) in
            let attempts = min(most, wanted ?? most)
            var list = try await listed(subject, artifactType, reference, endpoint, attempts, priority)
            if list == nil {
                list = try await tagged(subject, reference, endpoint, attempts: attempts)?.index.manifests
            }
            // A mirror that has none may only not have heard of any.
            if endpoint.isMirror, list?.isEmpty ?? true {
                throw RegistryError(.notFound, "\(endpoint.origin) lists nothing for \(subject.short)")
            }
            return list ?? []
        }
        return found.filter { $0.artifactType == artifactType && MediaTypes.isManifest($0.mediaType) }
    }

    /// The registry's own list; nil when it keeps none.
    private func listed(
        _ subject: Digest, _ artifactType: String, _ reference: Reference, _ endpoint: Endpoint, _ attempts: Int,
        _ priority: TransferPriority
    ) async throws(RegistryError) -> [Descriptor]? {
        let repository = endpoint.repository(reference.repository)
        let key = RedirectCache.Key(endpoint: endpoint, target: repository)
        let known = withoutReferrers.withLock { $0[key] }
        if let known, ContinuousClock.now - known < Self.withoutReferrersLifetime { return nil }
        var out: [Descriptor] = []
        var next = endpoint.url(
            "\(repository)/referrers/\(subject)?artifactType=\(HTTPURL.encodeQueryValue(artifactType))")
        for page in 0..<Self.maxReferrerPages {
            guard let url = next else { break }
            let call = RegistryCall(
                endpoint: endpoint, chain: RedirectPolicy(start: url, endpoint: endpoint.origin),
                headers: [("Accept", MediaTypes.ociIndex)], scopes: ["repository:\(repository):pull"],
                operation: .referrers, priority: priority)
            let result = try await document(
                call, attempts: attempts, limit: Limits.maxManifestSize, expected: Self.noSuchAPI.union([200])
            ).result
            guard result.head.status == 200 else {
                if page == 0 { noteWithoutReferrers(key) }
                return page == 0 ? nil : out
            }
            guard case .index(let index) = try OCIJSON.document(result.body, mediaType: MediaTypes.ociIndex).document
            else { return out }
            out += index.manifests
            next = Self.nextPage(result.head, url)
            // Pages are the endpoint's own business, as those of the tags.
            if next?.origin != endpoint.origin { next = nil }
        }
        return out
    }

    private func noteWithoutReferrers(_ key: RedirectCache.Key) {
        withoutReferrers.withLock { known in
            if known.count >= Self.maxWithoutReferrers { known = [:] }
            known[key] = .now
        }
    }

    /// The index under the tag, and its bytes; nil when there is no such tag.
    private func tagged(
        _ subject: Digest, _ reference: Reference, _ endpoint: Endpoint, attempts: Int
    ) async throws(RegistryError) -> (index: ImageIndex, bytes: [UInt8])? {
        let tag = try Self.tagged(reference, subject)
        do throws(RegistryError) {
            let fetched = try await fetchManifest(tag, endpoint, attempts: attempts)
            guard case .index(let index) = fetched.document else {
                throw RegistryError(
                    .invalidDocument, "\(tag) is no image index: something else than a list of referrers has that tag")
            }
            return (index, fetched.bytes)
        } catch {
            if error.code == .notFound { return nil }
            throw error
        }
    }

    private static func tagged(_ reference: Reference, _ subject: Digest) throws(RegistryError) -> Reference {
        do throws(OCISpecError) { return try reference.at(.tag(referrersTag(of: subject))) } catch {
            throw RegistryError(.configuration, error.message)
        }
    }

    // MARK: - Attaching

    /// An artifact as it was attached.
    package struct Attached: Sendable {
        /// Of the artifact's manifest.
        package let manifest: Descriptor
        /// The registry keeps the list itself; false when it was written under the tag.
        package let isListedByRegistry: Bool
        /// Artifacts of the same type that are listed no more.
        package let replaced: Int
    }

    private static var emptyConfig: [UInt8] { Array("{}".utf8) }
    /// Times the list under the tag is written, when others write it at the same time.
    private static var maxTagWrites: Int { 3 }

    /// Pushes one blob as an artifact whose subject is a manifest of the repository. Where the registry keeps no list of
    /// referrers, the one under the tag is changed: entries of the same type are replaced, all others kept as they are.
    package func attach(
        _ content: [UInt8], artifactType: String, annotations: [String: String], to subject: Descriptor,
        in reference: Reference
    ) async throws(RegistryError) -> Attached {
        let layer = Descriptor(mediaType: artifactType, digest: SHA256.hash(content), size: UInt64(content.count))
        let config = Descriptor(
            mediaType: MediaTypes.ociEmpty, digest: SHA256.hash(Self.emptyConfig), size: UInt64(Self.emptyConfig.count))
        _ = try await push(.bytes(content), digest: layer.digest, to: reference)
        _ = try await push(.bytes(Self.emptyConfig), digest: config.digest, to: reference)
        let bytes = try OCIJSON.encode(
            Manifest(
                artifactType: artifactType, config: config, layers: [layer],
                subject: Descriptor(mediaType: subject.mediaType, digest: subject.digest, size: subject.size),
                annotations: annotations))
        let manifest = Descriptor(
            mediaType: MediaTypes.ociManifest, digest: SHA256.hash(bytes), size: UInt64(bytes.count),
            annotations: annotations, artifactType: artifactType)
        let target = reference.byDigest(manifest.digest)
        let head = try await putManifest(bytes, mediaType: manifest.mediaType, to: target).head
        // "A registry that has processed the request with the subject header MUST include OCI-Subject".
        if head.first("OCI-Subject") != nil {
            return Attached(manifest: manifest, isListedByRegistry: true, replaced: 0)
        }
        let replaced = try await list(manifest, of: subject.digest, in: reference)
        return Attached(manifest: manifest, isListedByRegistry: false, replaced: replaced)
    }

    /// Writes the list under the tag until it has the artifact; how many others of its type it had.
    private func list(
        _ artifact: Descriptor, of subject: Digest, in reference: Reference
    ) async throws(RegistryError) -> Int {
        let endpoint = try configuration.origin(of: reference.registry)
        let attempts = configuration.retry.maxAttempts
        let tag = try Self.tagged(reference, subject)
        for _ in 0..<Self.maxTagWrites {
            let old = try await tagged(subject, reference, endpoint, attempts: attempts)
            let (bytes, replaced) = try ReferrersList(old?.bytes).adding(artifact)
            _ = try await putManifest(bytes, mediaType: MediaTypes.ociIndex, to: tag)
            // No registry of this kind compares and swaps: somebody may have written in between.
            let now = try await tagged(subject, reference, endpoint, attempts: attempts)
            if now?.index.manifests.contains(where: { $0.digest == artifact.digest }) == true { return replaced }
        }
        throw RegistryError(
            .malformedResponse, "\(tag) was written \(Self.maxTagWrites) times and does not list \(artifact.digest)")
    }
}

/// The index under the referrers tag, with everything in it that others wrote.
struct ReferrersList {
    private var fields: [String: JSONValue]

    /// nil starts a new one.
    init(_ bytes: [UInt8]?) throws(RegistryError) {
        if let bytes {
            fields = try OCIJSON.decode([String: JSONValue].self, from: bytes)
        } else {
            fields = ["schemaVersion": .integer(2), "mediaType": .string(MediaTypes.ociIndex)]
        }
    }

    /// The list with this artifact last and without others of its type, and how many those are.
    func adding(_ artifact: Descriptor) throws(RegistryError) -> (bytes: [UInt8], replaced: Int) {
        var entries: [JSONValue] = []
        if case .array(let known) = fields["manifests"] { entries = known }
        let others = entries.filter { $0["artifactType"]?.string != artifact.artifactType }
        guard others.count < OCILimits.maxIndexManifests else {
            throw RegistryError(
                .tooLarge, "the list of referrers has \(others.count) entries, limit \(OCILimits.maxIndexManifests)")
        }
        let entry = try OCIJSON.decode(JSONValue.self, from: try OCIJSON.encode(artifact))
        var fields = fields
        fields["manifests"] = .array(others + [entry])
        return (try OCIJSON.encode(fields), entries.count - others.count)
    }
}
