import ChunkModel
import OCISpec
import Testing

@Suite("Requests to the mirror") struct MirrorRequestTests {
    static let hex = String(repeating: "ab", count: 32)
    static let registries: Set<String> = ["docker.io", "localhost:5000", "[::1]:5000"]

    static func parse(_ target: String, method: String = "GET") throws(MirrorRefusal) -> MirrorRequest {
        try MirrorRequest(method: method, target: target, registries: registries)
    }

    @Test("blobs and manifests by digest are read, with the registry that containerd names")
    func wellFormed() throws {
        let digest = try #require(Digest(hex: Self.hex))
        let blob = try Self.parse("/v2/library/alpine/blobs/sha256:\(Self.hex)?ns=docker.io")
        #expect(blob.subject == .blob(digest, of: try Reference(registry: "docker.io", repository: "library/alpine")))
        #expect(!blob.isHead)
        for ns in ["localhost:5000", "localhost%3A5000", "LOCALHOST%3a5000"] {
            let manifest = try Self.parse("/v2/a/manifests/sha256:\(Self.hex)?x=1&ns=\(ns)", method: "HEAD")
            let expected = try Reference(registry: "localhost:5000", repository: "a", digest: digest)
            #expect(manifest.subject == .manifest(expected) && manifest.isHead)
        }
        #expect(throws: Never.self) {
            try Self.parse("/v2/a/blobs/blobs/sha256:\(Self.hex)?ns=%5B::1%5D:5000")
        }
        for base in ["/v2/", "/v2", "/v2/?ns=docker.io"] { #expect(try Self.parse(base).subject == .base) }
    }

    @Test(
        "everything else is refused, each for its reason",
        arguments: [
            ("", .path), ("/", .path), ("v2/", .path), ("/v1/", .path), ("/v2/a", .path), ("/v2//", .path),
            ("/v2/a/tags/list?ns=docker.io", .path), ("/v2/a/uploads/x?ns=docker.io", .path),
            ("/v2/a/blobs/sha256:HEX", .noRegistry), ("/v2/a/blobs/sha256:HEX?ns", .query),
            ("/v2/a/blobs/sha256:HEX?ns=docker.io&ns=docker.io", .query),
            ("/v2/a/blobs/sha256:HEX?ns=docker%2", .query), ("/v2/a/blobs/sha256:HEX?ns=docker.io%00", .query),
            ("/v2/a/blobs/sha256:HEX?a&b&c&d&e&f&g&h&ns=docker.io", .query),
            ("/v2/a/blobs/sha256:HEX?ns=", .registry), ("/v2/a/blobs/sha256:HEX?ns=169.254.169.254", .registry),
            ("/v2/a/blobs/sha256:HEX?ns=docker.io/x", .registry),
            ("/v2/a/blobs/sha256:HEX?ns=docker.io:443", .registry),
            ("/v2/a/blobs/sha256:HEX?ns=u@docker.io", .registry),
            ("/v2/../blobs/sha256:HEX?ns=docker.io", .repository), ("/v2/A/blobs/sha256:HEX?ns=docker.io", .repository),
            ("/v2/a//b/blobs/sha256:HEX?ns=docker.io", .repository),
            ("/v2/a%2Fb/blobs/sha256:HEX?ns=docker.io", .repository),
            ("/v2/a/manifests/latest?ns=docker.io", .tag), ("/v2/a/blobs/latest?ns=docker.io", .digest),
            ("/v2/a/blobs/sha256:../../x?ns=docker.io", .path), ("/v2/a/blobs/sha512:HEXHEX?ns=docker.io", .digest),
            ("/v2/a/manifests/sha256:ABCD?ns=docker.io", .digest),
        ] as [(String, MirrorRefusal)])
    func refused(target: String, reason: MirrorRefusal) {
        let target = target.split(separator: "HEX", omittingEmptySubsequences: false).joined(separator: Self.hex)
        #expect(throws: reason) { try Self.parse(target) }
        #expect(reason.status == 404)
    }

    @Test("only GET and HEAD, and no long targets")
    func limits() {
        #expect(throws: MirrorRefusal.method) { try Self.parse("/v2/", method: "PUT") }
        #expect(MirrorRefusal.method.status == 405)
        #expect(throws: MirrorRefusal.tooLong) {
            try Self.parse("/v2/?" + String(repeating: "a", count: MirrorRequest.maxTargetBytes))
        }
    }

    @Test("one range from a byte on is understood, and nothing else")
    func ranges() {
        #expect(RequestedRange("bytes=5-")?.range(of: 10) == 5..<10)
        #expect(RequestedRange("Bytes=5-7")?.range(of: 10) == 5..<8)
        #expect(RequestedRange("bytes=5-700")?.range(of: 10) == 5..<10)
        #expect(RequestedRange("bytes=0-0")?.range(of: 1) == 0..<1)
        #expect(RequestedRange("bytes=10-")?.range(of: 10) == nil)
        #expect(RequestedRange("bytes=0-18446744073709551615")?.range(of: 10) == 0..<10)
        for odd in [
            "", "bytes", "bytes=", "bytes=-5", "bytes=7-5", "bytes=1-2,4-5", "bytes=99999999999999999999-",
            "bytes=1-99999999999999999999", "items=0-1", "bytes=0-1x", "bytes = 0-1",
        ] {
            #expect(RequestedRange(odd) == nil, "\(odd)")
        }
    }
}
