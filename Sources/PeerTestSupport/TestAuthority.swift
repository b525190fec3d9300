import ChunkModel
import DevelopmentPKI
import Glibc
import PeerTransport
import TestSupport

/// A certificate authority in a temporary directory, with the nodes a test needs. What runs openssl is asynchronous: it
/// waits on a thread of its own.
package final class TestAuthority: Sendable {
    package let directory: TemporaryDirectory
    package let authority: DevelopmentAuthority

    package static func make() async throws -> TestAuthority { try await blocking { try TestAuthority() } }

    private init(trustDomain: String = "test.chunkd") throws {
        directory = try TemporaryDirectory(prefix: "chunkd-pki")
        guard let domain = TrustDomain(trustDomain) else { throw FixtureError("no trust domain: \(trustDomain)") }
        authority = try DevelopmentAuthority.create(
            directory: directory.path + "/ca", trustDomain: domain, validity: .days(10))
    }

    /// An authority beneath this one.
    package func intermediate() async throws -> DevelopmentAuthority {
        let (authority, path) = (authority, directory.path + "/below")
        return try await blocking { try authority.intermediate(directory: path, validity: .days(5)) }
    }

    package var trustDomain: TrustDomain { authority.trustDomain }

    package static func name(_ text: String) throws -> NodeName {
        guard let name = NodeName(text) else { throw FixtureError("no node name: \(text)") }
        return name
    }

    /// Issues a node's certificate, and says where its files are; `into` is a directory below this one's.
    package func files(
        _ node: String, into: String? = nil, validity: DevelopmentAuthority.Validity = .days(5),
        denied: [String]? = nil, force: Bool = false
    ) async throws -> IdentityFiles {
        let target = directory.path + "/" + (into ?? node)
        mkdir(target, 0o700)
        let (authority, name) = (authority, try Self.name(node))
        let made = try await blocking {
            try authority.issue(name, validity: validity, output: target, force: force)
        }
        var files = IdentityFiles(bundle: authority.bundle, certificate: made.certificate, key: made.key)
        if let denied { files.denyList = try directory.write("\(node)-denied", denied.joined(separator: "\n")) }
        return files
    }

    /// Certificates as they should not be.
    package func odd(
        _ file: String, uris: [String], usages: [String] = DevelopmentAuthority.bothSides,
        validity: DevelopmentAuthority.Validity = .days(5)
    ) async throws -> IdentityFiles {
        let target = directory.path + "/odd-" + file
        mkdir(target, 0o700)
        let authority = authority
        let made = try await blocking {
            try authority.issue(
                file: file, commonName: file, uris: uris, usages: usages, validity: validity, output: target)
        }
        return IdentityFiles(bundle: authority.bundle, certificate: made.certificate, key: made.key)
    }

    package func store(
        _ files: IdentityFiles, observer: @escaping PeerTransportObserver = { _ in }
    ) throws -> IdentityStore {
        let store = IdentityStore(files: files, trustDomain: trustDomain, observer: observer)
        if let failure = store.failure { throw FixtureError("identity: \(failure)") }
        return store
    }

    package func store(
        _ node: String, denied: [String]? = nil, observer: @escaping PeerTransportObserver = { _ in }
    ) async throws -> IdentityStore {
        try store(try await files(node, denied: denied), observer: observer)
    }

    /// A file's bytes.
    package static func read(_ path: String) -> [UInt8] { Array(TemporaryDirectory.text(of: path).utf8) }
}
