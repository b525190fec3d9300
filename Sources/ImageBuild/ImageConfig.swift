internal import ChunkModel
internal import OCISpec
internal import RegistryClient

/// An image config (OCI image-spec `config.md`): the source's, kept in full but for what describes its layers.
struct ImageConfig: Equatable, Sendable {
    private(set) var document: [String: JSONValue]

    /// When a config does not say when it was made.
    static let epoch = "1970-01-01T00:00:00Z"

    /// Reads a config of at most `OCILimits.maxConfigSize` bytes.
    init(_ bytes: [UInt8]) throws(ImageBuildError) {
        let value: JSONValue
        do throws(RegistryError) {
            value = try OCIJSON.decode(JSONValue.self, from: bytes)
        } catch { throw ImageBuildError(.badSource, "the image config is not JSON", cause: error) }
        guard case .object(let members) = value else {
            throw ImageBuildError(.badSource, "the image config is not a JSON object")
        }
        document = members
    }

    /// A minimal config for a plain directory.
    init(platform: Platform) {
        document = [
            "architecture": .string(platform.architecture), "os": .string(platform.os), "config": .object([:]),
        ]
        if let variant = platform.variant { document["variant"] = .string(variant) }
    }

    /// The platform it names; nil when it names none.
    var platform: Platform? {
        guard let os = document["os"]?.string, let architecture = document["architecture"]?.string else { return nil }
        return Platform(os: os, architecture: architecture, variant: document["variant"]?.string)
    }

    var created: String? { document["created"]?.string }

    /// Digests of the layers' uncompressed content; nil when there are none or one is malformed.
    var diffIDs: [Digest]? {
        guard let strings = document["rootfs"]?["diff_ids"]?.strings else { return nil }
        let digests = strings.compactMap { Digest($0) }
        return digests.count == strings.count ? digests : nil
    }

    /// The member `config`: what a runtime runs.
    var runtime: JSONValue? { document["config"] }

    /// This config for other layers, as canonical JSON. History is dropped: it tells of layers that are no longer there
    /// (`config.md`: "history" has one entry a layer).
    func encoded(diffIDs: [Digest]) throws(ImageBuildError) -> [UInt8] {
        var members = document
        members["rootfs"] = .object([
            "type": .string("layers"), "diff_ids": .array(diffIDs.map { .string($0.description) }),
        ])
        members["history"] = nil
        if members["created"]?.string == nil { members["created"] = .string(Self.epoch) }
        do throws(RegistryError) {
            return try OCIJSON.encode(JSONValue.object(members))
        } catch { throw ImageBuildError(.invalidImage, "the image config cannot be written", cause: error) }
    }
}
