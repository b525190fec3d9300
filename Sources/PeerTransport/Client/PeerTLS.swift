import CTLS
import ChunkModel
import HTTPTransfer
import Synchronization

/// The TLS of one request's connection, should it need a new one: our certificate, and a check that the other side is the
/// node that was asked for. Thread-safe.
final class PeerTLS: TransferTLS, Sendable {
    /// Nil: whoever it is, as long as it is a node.
    private let expected: NodeName?
    private let seen = Mutex<NodeName?>(nil)
    private let identity: PeerIdentity
    private let refusal = Mutex<IdentityError?>(nil)

    init(expected: NodeName?, identity: PeerIdentity) {
        self.expected = expected
        self.identity = identity
    }

    /// The other side's proven name, once there is a connection.
    var name: NodeName? { seen.withLock { $0 } }

    /// Why the other side was refused, once its certificate was seen.
    var failure: IdentityError? { refusal.withLock { $0 } }

    func prepare(_ context: UnsafeMutableRawPointer) -> Bool {
        let context = OpaquePointer(context)
        let chain: [OpaquePointer?] = identity.chain.map(\.pointer)
        defer { ERR_clear_error() }
        guard ctls_use(context, identity.key.pointer, chain, Int32(chain.count)) == 1 else { return false }
        // The SSL_CTX may outlive the request that made its connection: it owns what its callback needs.
        let held = Unmanaged.passRetained(self)
        guard ctls_set_check(context, peerTLSCheck, held.toOpaque(), peerTLSRelease) == 1 else {
            held.release()
            return false
        }
        return true
    }

    fileprivate func check(_ chain: [[UInt8]]) -> Bool {
        do throws(IdentityError) {
            let name = try identity.verifier.verify(chain: chain).name
            if let expected, name != expected {
                throw IdentityError(.wrongName, "expected node \(expected), found \(name)")
            }
            seen.withLock { $0 = name }
            return true
        } catch {
            refusal.withLock { $0 = error }
            return false
        }
    }
}

// Called by OpenSSL on the transfer thread: top-level functions, since a closure of an isolated scope would trap there.

private func peerTLSCheck(
    _ der: UnsafePointer<UnsafePointer<UInt8>?>?, _ lengths: UnsafePointer<Int>?, _ count: Int32,
    _ user: UnsafeMutableRawPointer?
) -> Int32 {
    guard let der, let lengths, let user else { return 0 }
    let chain = (0..<Int(count)).map { Array(UnsafeBufferPointer(start: der[$0], count: lengths[$0])) }
    return Unmanaged<PeerTLS>.fromOpaque(user).takeUnretainedValue().check(chain) ? 1 : 0
}

private func peerTLSRelease(_ user: UnsafeMutableRawPointer?) {
    if let user { Unmanaged<PeerTLS>.fromOpaque(user).release() }
}
