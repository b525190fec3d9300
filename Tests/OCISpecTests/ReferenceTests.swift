import ChunkModel
import OCISpec
import TestSupport
import Testing

@Suite struct ReferenceTests {
    static let hex = String(repeating: "0123456789abcdef", count: 4)

    @Test(
        arguments: [
            ("localhost/a", "localhost", "a", nil), ("localhost:5000/a/b:1.0", "localhost:5000", "a/b", "1.0"),
            ("r.example/lib/busybox", "r.example", "lib/busybox", nil),
            ("R.Example:443/a__b/c-d.e---f:T_a.g-1", "r.example:443", "a__b/c-d.e---f", "T_a.g-1"),
            ("127.0.0.1:5000/x:v", "127.0.0.1:5000", "x", "v"), ("[::1]:5000/x", "[::1]:5000", "x", nil),
            ("[2001:DB8::1]/x", "[2001:db8::1]", "x", nil), ("registry:5000/x", "registry:5000", "x", nil),
        ] as [(String, String, String, String?)])
    func wellFormedOnesAreTakenApart(text: String, registry: String, repository: String, tag: String?) throws {
        let reference = try Reference(text)
        #expect(reference.registry == registry)
        #expect(reference.repository == repository)
        #expect(reference.tag == tag)
        #expect(reference.digest == nil)
        #expect(reference.target == .tag(tag ?? "latest"))
        #expect(try Reference(reference.description) == reference)
    }

    @Test func theDigestWinsOverTheTag() throws {
        let text = "r.example/a:1@sha256:\(Self.hex)"
        let reference = try Reference(text)
        let digest = try #require(Digest(hex: Self.hex))
        #expect(reference.tag == "1")
        #expect(reference.target == .digest(digest))
        #expect(reference.description == text)
        #expect(try Reference("r.example/a").pinned(to: digest).description == "r.example/a@sha256:\(Self.hex)")
        #expect(try reference.at(.tag("2")).description == "r.example/a:2")
    }

    @Test(arguments: ["busybox", "library/busybox", "busybox:latest", "UPPER/x", "a/b/c", "/a", "a"])
    func aReferenceWithoutARegistrySaysSo(text: String) {
        #expect { try Reference(text) } throws: { error in
            (error as? OCISpecError)?.code == .missingRegistry && "\(error)".contains("HOST[:PORT]")
        }
    }

    @Test(arguments: [
        "", "r.example/", "r.example", "r.example/A", "r.example/a//b", "r.example/a/", "r.example/a:",
        "r.example/a:-x",
        "r.example/a:.x", "r.example/a_", "r.example/_a", "r.example/a..b", "r.example/a_-b", "r.example/a___b",
        "r.example:0/a", "r.example:65536/a", "r.example:/a", "r.example:5x/a", "-r.example/a", "r-.example/a",
        "r..example/a", "r.example/a@", "r.example/a@sha256:abc", "r.example/a@sha512:\(hex)\(hex)",
        "r.example/a@sha256:\(hex.uppercased())", "r.example/a@sha256:../../x", "r.example/../a", "r.example/a b",
        "r.example/a\n", "u:p@r.example/a", "https://r.example/a", "[::1/a", "[:::1]/a", "[::g]/a", "[127.0.0.1]/a",
        "r.example/a:\(String(repeating: "t", count: 129))", "r.example/\(String(repeating: "a", count: 250))",
        "\(String(repeating: "r", count: 64)).example/a", "r.example/ä", "r.éxample/a", "r.example/a:b:c",
    ])
    func malformedOnesAreRefused(text: String) {
        #expect(throws: OCISpecError.self) { try Reference(text) }
    }

    @Test func messagesAreBoundedAndPrintable() {
        let hostile = "r.example/" + String(repeating: "\u{1B}[31m\n", count: 50)
        do throws(OCISpecError) {
            _ = try Reference(hostile)
            Issue.record("accepted")
        } catch {
            #expect(error.message.utf8.count < 400)
            #expect(error.message.unicodeScalars.allSatisfy { $0.value >= 32 })
        }
    }

    /// Whatever the bytes: parsing does not trap, and what is accepted is printed and parsed to the same.
    @Test func randomTextNeverTrapsAndAcceptedTextSurvivesTheRoundTrip() throws {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let alphabet = Array("ab1.:/@-_[]%ABsha256:".unicodeScalars) + ["\u{0}", "é", "\n"]
        var accepted = 0
        for _ in 0..<20_000 {
            var text = ""
            if Bool.random(using: &random) { text = "r.io/" }
            for _ in 0..<Int.random(in: 0..<12, using: &random) {
                text.unicodeScalars.append(alphabet[Int.random(in: 0..<alphabet.count, using: &random)])
            }
            if let reference = try? Reference(text) {
                accepted += 1
                #expect(try Reference(reference.description) == reference, "\(text)")
                #expect(!reference.repository.contains("..") || reference.repository.isEmpty)
            }
        }
        #expect(accepted > 50)
    }
}

@Suite struct IPAddressTests {
    @Test(arguments: [
        ("127.0.0.1", "loopback"), ("127.255.255.255", "loopback"), ("128.0.0.1", "global"), ("0.0.0.0", "unusable"),
        ("169.254.169.254", "metadata"), ("169.254.1.1", "linkLocal"), ("10.0.0.1", "global"),
        ("100.100.100.200", "metadata"), ("224.0.0.1", "unusable"), ("255.255.255.255", "unusable"),
        ("::1", "loopback"), ("::", "unusable"), ("fe80::1", "linkLocal"), ("febf::1", "linkLocal"),
        ("fec0::1", "global"), ("ff02::1", "unusable"), ("2001:db8::1", "global"), ("fd00:ec2::254", "metadata"),
        ("::ffff:127.0.0.1", "loopback"), ("::ffff:169.254.169.254", "metadata"), ("::ffff:a9fe:a9fe", "metadata"),
        ("64:ff9b::7f00:1", "loopback"), ("::127.0.0.1", "loopback"), ("1:2:3:4:5:6:7:8", "global"),
        ("1:2:3:4:5:6:1.2.3.4", "global"), ("1::", "global"),
    ])
    func scopesAreTold(text: String, scope: String) throws {
        #expect(try #require(IPAddress(text)).scope.rawValue == scope)
    }

    @Test(arguments: [
        "", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "0x7f.0.0.1", "127.1", "2130706433", "1.2.3.4 ",
        ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "g::1", "12345::", "fe80::1%eth0", "1.2.3.4::",
        "1:2:3:4:5:6:7:1.2.3.4", "[::1]", "1::2:3:4:5:6:7:8",
    ])
    func otherTextIsNoAddress(text: String) {
        #expect(IPAddress(text) == nil)
    }
}
