/// Which images peers are given: by repository.
struct SharingPolicy: Sendable, Equatable {
    enum Policy: Sendable, Equatable {
        /// Any node of the cluster: ids on the wire are digests.
        case publicImage
        /// Nodes that have the manifest, which the registry gives to those it lets pull: ids are keyed by its bytes.
        case manifest
        /// Nobody.
        case none
        /// Not named: `manifest` when its registry is given credentials, else `publicImage`.
        case byCredentials
    }

    private let open: [Pattern]
    private let keyed: [Pattern]
    private let closed: [Pattern]

    private struct Pattern: Sendable, Equatable {
        let text: String
        let isPrefix: Bool

        func matches(_ name: String) -> Bool { isPrefix ? name.hasPrefix(text) : name == text }
    }

    /// Lists as in the settings: `host/name` or `host/prefix*`, with commas.
    init(publicImages: String = "", keyedImages: String = "", unshared: String = "") {
        (open, keyed) = (Self.patterns(publicImages), Self.patterns(keyedImages))
        closed = Self.patterns(unshared)
    }

    private static func patterns(_ list: String) -> [Pattern] {
        list.split(whereSeparator: { $0 == "," || $0 == " " }).map { text in
            text.hasSuffix("*")
                ? Pattern(text: String(text.dropLast()), isPrefix: true) : Pattern(text: String(text), isPrefix: false)
        }
    }

    /// The policy for a repository, `host/name`; of several that name it the strictest.
    func policy(of repository: String) -> Policy {
        if closed.contains(where: { $0.matches(repository) }) { return .none }
        if keyed.contains(where: { $0.matches(repository) }) { return .manifest }
        return open.contains { $0.matches(repository) } ? .publicImage : .byCredentials
    }
}
