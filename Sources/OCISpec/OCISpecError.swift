/// Why foreign text or a foreign document is not what the OCI specifications, or chunkd's image layout, ask for.
///
/// Value type, safe to use from any thread.
package struct OCISpecError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        case invalidReference = "invalid_reference"
        case missingRegistry = "missing_registry"
        case invalidPlatform = "invalid_platform"
        case invalidURL = "invalid_url"
        case invalidDocument = "invalid_document"
        case limitExceeded = "limit_exceeded"
        case noMatchingPlatform = "no_matching_platform"
        case notChunkdImage = "not_chunkd_image"
    }

    package let code: Code
    /// What was expected and what was found, bounded in length and free of control characters.
    package let message: String

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { message }

    /// Foreign text made safe for a message or a log line: printable ASCII only and at most `limit` characters.
    package static func quote(_ text: some StringProtocol, limit: Int = 120) -> String {
        var out: [UInt8] = [UInt8(ascii: "'")]
        var count = 0
        for unit in text.utf8 {
            guard count < limit else {
                out += Array("…".utf8)
                break
            }
            out.append((0x20...0x7E).contains(unit) ? unit : UInt8(ascii: "?"))
            count += 1
        }
        out.append(UInt8(ascii: "'"))
        return String(decoding: out, as: UTF8.self)
    }
}

/// Limits on what OCISpec parses. Documents as a whole are bounded by `Limits.maxManifestSize` before they get here.
package enum OCILimits {
    /// Bytes of a reference: name 255 + tag 128 + digest 71 + separators, rounded up (distribution/reference).
    package static let maxReferenceLength = 512
    /// Bytes of registry host, port and repository path together (distribution/reference `NameTotalLengthMax`).
    package static let maxNameLength = 255
    /// Layers in one manifest. Ordinary images have at most 127 (overlayfs); ours 1 + 2 × `Limits.maxBlobsPerImage`.
    package static let maxLayers = 512
    /// Manifests in one image index.
    package static let maxIndexManifests = 512
    /// Annotations on one document or descriptor.
    package static let maxAnnotations = 256
    /// Bytes of one media type, RFC 6838 section 4.2: 127 + "/" + 127.
    package static let maxMediaTypeLength = 255
    /// Bytes of an image config: what is read whole into memory.
    package static let maxConfigSize = 4 << 20
    /// Bytes of one HTTP header value that is parsed.
    package static let maxHeaderValueLength = 8192
    /// Challenges in the WWW-Authenticate headers of one response, and parameters in one challenge.
    package static let maxChallenges = 8
    package static let maxChallengeParameters = 16
    /// Bytes of a URL; presigned ones run to about 2 KiB.
    package static let maxURLLength = 8192
}
