import FoundationEssentials
import OCISpec

/// JSON of OCI documents. Encoding is canonical for us: keys sorted, no white space, slashes not escaped, so that equal
/// documents have equal digests.
package enum OCIJSON {
    /// Decodes; `invalidDocument` says what is wrong. The caller bounds the size before.
    package static func decode<T: Decodable>(_ type: T.Type, from bytes: [UInt8]) throws(RegistryError) -> T {
        do {
            return try JSONDecoder().decode(type, from: Data(bytes))
        } catch let error as OCISpecError {
            throw RegistryError(.invalidDocument, error.message)
        } catch let error as DecodingError {
            throw RegistryError(.invalidDocument, "not a valid \(type): \(Self.describe(error))")
        } catch {
            throw RegistryError(.invalidDocument, "not a valid \(type)")
        }
    }

    /// Encodes a document of ours.
    package static func encode(_ value: some Encodable) throws(RegistryError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return Array(try encoder.encode(value))
        } catch {
            throw RegistryError(.invalidDocument, "cannot be written as JSON")
        }
    }

    /// Reads a manifest or index by its media type, or by its shape when the type is not given.
    package static func document(
        _ bytes: [UInt8], mediaType: String?
    ) throws(RegistryError) -> (document: ManifestDocument, mediaType: String) {
        let kind: String
        if let mediaType { kind = mediaType } else { kind = try decode(Kind.self, from: bytes).mediaTypeOrGuess }
        if MediaTypes.isIndex(kind) {
            let index = try decode(ImageIndex.self, from: bytes)
            return (.index(index), index.mediaType)
        }
        guard MediaTypes.isManifest(kind) else {
            throw RegistryError(
                .invalidDocument, "media type \(OCISpecError.quote(kind)) is neither manifest nor index")
        }
        let manifest = try decode(Manifest.self, from: bytes)
        return (.manifest(manifest), manifest.mediaType)
    }

    private struct Kind: Decodable {
        let mediaType: String?
        let manifests: Present?

        var mediaTypeOrGuess: String {
            mediaType ?? (manifests == nil ? MediaTypes.ociManifest : MediaTypes.ociIndex)
        }
    }

    /// Any value at all: only its presence counts.
    private struct Present: Decodable {
        init(from decoder: any Decoder) throws {}
    }

    private static func describe(_ error: DecodingError) -> String {
        let context: DecodingError.Context
        let what: String
        switch error {
        case .keyNotFound(let key, let found): (context, what) = (found, "'\(key.stringValue.prefix(40))' is missing")
        case .typeMismatch(_, let found): (context, what) = (found, "wrong type")
        case .valueNotFound(_, let found): (context, what) = (found, "null")
        case .dataCorrupted(let found): (context, what) = (found, "malformed")
        @unknown default: return "malformed"
        }
        let path = context.codingPath.prefix(8).map { $0.intValue.map(String.init) ?? $0.stringValue }
        return path.isEmpty ? what : "\(OCISpecError.quote(path.joined(separator: "."))): \(what)"
    }
}
