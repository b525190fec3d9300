import ChunkModel

/// Points at content by media type, digest and size (OCI image-spec `descriptor.md`).
///
/// Decoding checks what the specification asks for and the limits; `size` is what the other side *says*, never
/// trusted beyond a bound. `urls` and `data` are ignored: content comes from the registry by digest only
/// (CVE-2020-15157). Value type, safe on any thread.
package struct Descriptor: Hashable, Sendable, Codable {
    package var mediaType: String
    package var digest: Digest
    /// Bytes of the content.
    package var size: UInt64
    package var annotations: [String: String]
    package var platform: Platform?
    package var artifactType: String?

    package init(
        mediaType: String, digest: Digest, size: UInt64, annotations: [String: String] = [:],
        platform: Platform? = nil, artifactType: String? = nil
    ) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.annotations = annotations
        self.platform = platform
        self.artifactType = artifactType
    }

    private enum CodingKeys: String, CodingKey { case mediaType, digest, size, annotations, platform, artifactType }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        mediaType = try container.decode(String.self, forKey: .mediaType)
        digest = try container.decode(Digest.self, forKey: .digest)
        // The specification's size is a signed 64-bit number; a negative one is as hostile as an absurd one.
        let signed = try container.decode(Int64.self, forKey: .size)
        guard signed >= 0 else { throw OCISpecError(.invalidDocument, "descriptor size \(signed) is negative") }
        size = UInt64(signed)
        annotations = try container.decodeIfPresent([String: String].self, forKey: .annotations) ?? [:]
        platform = try container.decodeIfPresent(Platform.self, forKey: .platform)
        artifactType = try container.decodeIfPresent(String.self, forKey: .artifactType)
        try checkMediaType(mediaType)
        try checkCount(annotations.count, OCILimits.maxAnnotations, "annotations")
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(mediaType, forKey: .mediaType)
        try container.encode(digest, forKey: .digest)
        try container.encode(size, forKey: .size)
        if !annotations.isEmpty { try container.encode(annotations, forKey: .annotations) }
        try container.encodeIfPresent(platform, forKey: .platform)
        try container.encodeIfPresent(artifactType, forKey: .artifactType)
    }
}

/// An image manifest (OCI image-spec `manifest.md`; Docker schema 2 has the same shape).
package struct Manifest: Hashable, Sendable, Codable {
    package var mediaType: String
    package var artifactType: String?
    package var config: Descriptor
    package var layers: [Descriptor]
    package var subject: Descriptor?
    package var annotations: [String: String]

    package init(
        mediaType: String = MediaTypes.ociManifest, artifactType: String? = nil, config: Descriptor,
        layers: [Descriptor], subject: Descriptor? = nil, annotations: [String: String] = [:]
    ) {
        self.mediaType = mediaType
        self.artifactType = artifactType
        self.config = config
        self.layers = layers
        self.subject = subject
        self.annotations = annotations
    }

    private enum CodingKeys: String, CodingKey {
        case schemaVersion, mediaType, artifactType, config, layers, subject, annotations, manifests
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        try checkSchemaVersion(try container.decode(Int.self, forKey: .schemaVersion))
        mediaType = try container.decodeIfPresent(String.self, forKey: .mediaType) ?? MediaTypes.ociManifest
        // A document that could be read as both kinds is refused (CVE-2021-41190).
        guard MediaTypes.isManifest(mediaType), !container.contains(.manifests) else {
            throw OCISpecError(
                .invalidDocument, "expected an image manifest, found \(OCISpecError.quote(mediaType))")
        }
        artifactType = try container.decodeIfPresent(String.self, forKey: .artifactType)
        config = try container.decode(Descriptor.self, forKey: .config)
        layers = try container.decode([Descriptor].self, forKey: .layers)
        subject = try container.decodeIfPresent(Descriptor.self, forKey: .subject)
        annotations = try container.decodeIfPresent([String: String].self, forKey: .annotations) ?? [:]
        try checkCount(layers.count, OCILimits.maxLayers, "layers")
        try checkCount(annotations.count, OCILimits.maxAnnotations, "annotations")
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(2, forKey: .schemaVersion)
        try container.encode(mediaType, forKey: .mediaType)
        try container.encodeIfPresent(artifactType, forKey: .artifactType)
        try container.encode(config, forKey: .config)
        try container.encode(layers, forKey: .layers)
        try container.encodeIfPresent(subject, forKey: .subject)
        if !annotations.isEmpty { try container.encode(annotations, forKey: .annotations) }
    }
}

/// An image index: one manifest a platform (OCI image-spec `image-index.md`; Docker manifest list).
package struct ImageIndex: Hashable, Sendable, Codable {
    package var mediaType: String
    package var manifests: [Descriptor]
    package var annotations: [String: String]

    package init(
        mediaType: String = MediaTypes.ociIndex, manifests: [Descriptor], annotations: [String: String] = [:]
    ) {
        self.mediaType = mediaType
        self.manifests = manifests
        self.annotations = annotations
    }

    private enum CodingKeys: String, CodingKey {
        case schemaVersion, mediaType, manifests, annotations, config, layers
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        try checkSchemaVersion(try container.decode(Int.self, forKey: .schemaVersion))
        mediaType = try container.decodeIfPresent(String.self, forKey: .mediaType) ?? MediaTypes.ociIndex
        guard MediaTypes.isIndex(mediaType), !container.contains(.config), !container.contains(.layers) else {
            throw OCISpecError(.invalidDocument, "expected an image index, found \(OCISpecError.quote(mediaType))")
        }
        manifests = try container.decode([Descriptor].self, forKey: .manifests)
        annotations = try container.decodeIfPresent([String: String].self, forKey: .annotations) ?? [:]
        try checkCount(manifests.count, OCILimits.maxIndexManifests, "manifests")
        try checkCount(annotations.count, OCILimits.maxAnnotations, "annotations")
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(2, forKey: .schemaVersion)
        try container.encode(mediaType, forKey: .mediaType)
        try container.encode(manifests, forKey: .manifests)
        if !annotations.isEmpty { try container.encode(annotations, forKey: .annotations) }
    }

    /// The manifest for a platform: the first exact match, else the best compatible one (`arm/v7` runs `arm/v6`).
    /// Entries without a platform, or nested indexes, are never chosen.
    package func select(_ wanted: Platform) throws(OCISpecError) -> Descriptor {
        for candidate in wanted.compatible {
            let found = manifests.first {
                $0.platform?.matches(candidate) == true && MediaTypes.isManifest($0.mediaType)
            }
            if let found { return found }
        }
        var offered: [String] = []
        for manifest in manifests.prefix(16) {
            offered.append(manifest.platform.map { OCISpecError.quote($0.description, limit: 40) } ?? "none")
        }
        throw OCISpecError(
            .noMatchingPlatform,
            "image index has no manifest for \(wanted); it offers "
                + (offered.isEmpty ? "none" : offered.joined(separator: ", "))
        )
    }
}

/// What a manifest request answers with.
package enum ManifestDocument: Hashable, Sendable {
    case manifest(Manifest)
    case index(ImageIndex)
}

private func checkSchemaVersion(_ version: Int) throws {
    guard version == 2 else { throw OCISpecError(.invalidDocument, "schemaVersion is \(version), expected 2") }
}

private func checkMediaType(_ type: String) throws {
    guard MediaTypes.essence(of: type) != nil else {
        throw OCISpecError(.invalidDocument, "media type \(OCISpecError.quote(type)) is not type/subtype")
    }
}

private func checkCount(_ count: Int, _ limit: Int, _ what: String) throws {
    guard count <= limit else { throw OCISpecError(.limitExceeded, "\(count) \(what), limit \(limit)") }
}
