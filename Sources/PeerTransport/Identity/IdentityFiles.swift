import ChunkModel
import Glibc
import LinuxSystem

/// Where a node's identity lies: PEM files, written by SPIRE, cert-manager or `chunkctl pki`.
package struct IdentityFiles: Sendable, Equatable {
    /// The authorities of the cluster.
    package var bundle: String
    /// The node's certificate, then what leads from it towards the bundle.
    package var certificate: String
    /// Its private key, not encrypted.
    package var key: String
    /// Names that are cut off, one a line, `#` starts a comment. A configured file must exist.
    package var denyList: String?

    package init(bundle: String, certificate: String, key: String, denyList: String? = nil) {
        self.bundle = bundle
        self.certificate = certificate
        self.key = key
        self.denyList = denyList
    }

    /// Largest file in bytes: 64 authorities of 4 KiB, or 4,000 names on the deny list.
    static let maxFileBytes = 256 << 10
    /// Authorities in a bundle.
    static let maxAuthorities = 64

    var paths: [String] { [bundle, certificate, key] + (denyList.map { [$0] } ?? []) }

    /// What tells a changed file from an unchanged one without reading it.
    struct Signature: Equatable, Sendable {
        var files: [FileState?]

        struct FileState: Equatable, Sendable {
            let device: UInt64
            let inode: UInt64
            let size: Int64
            let seconds: Int
            let nanoseconds: Int
        }
    }

    /// The files as they are now; nil for one that cannot be found. A changed link counts as a changed file.
    func signature() -> Signature {
        Signature(
            files: paths.map { path in
                var status = stat()
                guard stat(path, &status) == 0 else { return nil }
                return Signature.FileState(
                    device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int64(status.st_size),
                    seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec)
            })
    }

    /// Reads all files and makes an identity of them, or says why they are not fit for use.
    func load(
        trustDomain: TrustDomain, generation: UInt64, clock: @escaping @Sendable () -> Int64
    ) throws(IdentityError) -> PeerIdentity {
        let authorities = try named(bundle) { (pem) throws(IdentityError) in
            try Certificate.all(pem: pem, limit: Self.maxAuthorities)
        }
        let chain = try named(certificate) { (pem) throws(IdentityError) in
            try Certificate.all(pem: pem, limit: Certificate.maxChain)
        }
        let privateKey = try named(key) { (pem) throws(IdentityError) in try PrivateKey(pem: pem) }
        let denied = try denyList.map { (path) throws(IdentityError) in
            try named(path) { (text) throws(IdentityError) in try Self.names(text) }
        }
        guard privateKey.belongs(to: chain[0]) else {
            throw IdentityError(.keyMismatch, "\(key) is not the key of \(certificate)")
        }
        let verifier = try PeerVerifier(
            bundle: authorities, trustDomain: trustDomain, denied: denied ?? [], clock: clock)
        return try PeerIdentity(
            generation: generation, bundle: authorities, chain: chain, key: privateKey, verifier: verifier,
            denied: denied ?? [])
    }

    /// Reads a file and hands its bytes to `body`; errors name the file.
    private func named<Value>(
        _ path: String, _ body: ([UInt8]) throws(IdentityError) -> Value
    ) throws(IdentityError) -> Value {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try File(path: path, flags: O_RDONLY).contents(limit: Self.maxFileBytes)
        } catch {
            throw IdentityError(.unreadableFile, "\(path): \(error)")
        }
        do throws(IdentityError) { return try body(bytes) } catch {
            throw IdentityError(error.reason, "\(path): \(error.message)")
        }
    }

    /// The names of a deny list. One line that is no name refuses the whole file: a typing error must not let a node in.
    static func names(_ text: [UInt8]) throws(IdentityError) -> Set<NodeName> {
        var out: Set<NodeName> = []
        for (number, line) in text.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
            let words = line.prefix { $0 != UInt8(ascii: "#") }.split { $0 == 32 || $0 == 9 || $0 == 13 }
            guard let word = words.first else { continue }
            guard words.count == 1, let name = NodeName(String(decoding: word, as: UTF8.self)) else {
                throw IdentityError(.malformedFile, "line \(number + 1): expected one node name")
            }
            out.insert(name)
        }
        return out
    }
}
