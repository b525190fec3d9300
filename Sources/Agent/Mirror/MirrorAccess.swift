import ChunkModel
import Integrity
import OCISpec
import RegistryClient
import Synchronization

/// One way to ask a registry: with somebody's credentials, or with none. Never says what they are.
struct MirrorAccess: Sendable, CustomStringConvertible {
    /// Stands for registry and credentials; means nothing outside this process.
    let id: Digest
    let client: RegistryClient
    /// Nothing is shown to the registry.
    let isAnonymous: Bool
    /// This node's own credentials, if it has any.
    let isNode: Bool

    var description: String { isAnonymous ? "anonymous" : "with credentials" }
}

/// The ways in use: credentials that containerd has shown, in memory alone, few and not for long. Thread-safe.
final class MirrorAccesses: Sendable {
    private struct Kept {
        let access: MirrorAccess
        var lastUsed: ContinuousClock.Instant
    }

    /// Kept at once: pods of so many tenants pull within the time below.
    static let maxKept = 64
    /// Forgotten when not used for this long.
    static let lifetime = Duration.seconds(600)

    private let base: RegistryClient
    private let nodeCredentials: Bool
    /// Makes ids that nobody can compare with those of a guessed password.
    private let salt: [UInt8]
    private let kept = Mutex<[Digest: Kept]>([:])

    /// `base` has the configuration of this node, with its credentials; they are used only if `nodeCredentials`.
    init(_ base: RegistryClient, nodeCredentials: Bool) {
        self.base = base
        self.nodeCredentials = nodeCredentials
        var random = SystemRandomNumberGenerator()
        salt = (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// How to ask a registry for somebody who shows these credentials.
    func access(_ registry: String, showing credential: RegistryCredential?) -> MirrorAccess {
        let secret: String
        var isNode = false
        switch credential {
        case .password(let username, let password): secret = "p\0\(username)\0\(password)"
        case .identityToken(let token): secret = "i\0\(token)"
        case .bearer(let token): secret = "b\0\(token)"
        case nil:
            isNode = nodeCredentials
            secret = isNode ? "n" : "a"
        }
        let id = SHA256.hash(salt + Array("\(registry)\0\(secret)".utf8))
        let now = ContinuousClock.now
        return kept.withLock { kept in
            kept = kept.filter { now < $0.value.lastUsed + Self.lifetime }
            if let found = kept[id] {
                kept[id]?.lastUsed = now
                return found.access
            }
            if kept.count >= Self.maxKept, let oldest = kept.min(by: { $0.value.lastUsed < $1.value.lastUsed })?.key {
                kept[oldest] = nil
            }
            let client =
                isNode ? base : RegistryClient(base, showing: .given(credential, registry: registry))
            let access = MirrorAccess(
                id: id, client: client, isAnonymous: credential == nil && !isNode, isNode: isNode)
            kept[id] = Kept(access: access, lastUsed: now)
            return access
        }
    }

    var count: Int { kept.withLock { $0.count } }
}
