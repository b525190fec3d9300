import OCISpec
import TestSupport
import Testing

@Suite struct HeaderTests {
    @Test(
        arguments: [
            ("bytes 0-99/1000", 0, 100, 1000), ("bytes 5-5/*", 5, 6, nil), ("BYTES 10-19/20 ", 10, 20, 20),
        ] as [(String, UInt64, UInt64, UInt64?)])
    func contentRangeIsParsed(text: String, first: UInt64, end: UInt64, total: UInt64?) throws {
        let parsed = try #require(ContentRange(text))
        #expect(parsed.range == first..<end)
        #expect(parsed.totalSize == total)
    }

    @Test func unsatisfiedContentRangeHasOnlyASize() throws {
        let parsed = try #require(ContentRange("bytes */1234"))
        #expect(parsed.range == nil && parsed.totalSize == 1234)
    }

    @Test(arguments: [
        "", "bytes", "bytes ", "bytes 0-99", "bytes 9-0/10", "bytes 0-10/10", "bytes 0-99/100x", "bytes -5/10",
        "bytes */*",
        "items 0-9/10", "bytes 0-9/10, bytes 20-29/30", "bytes 0-18446744073709551615/*",
        "bytes 99999999999999999999-1/5",
        "bytes 0-9/99999999999999999999", "bytes=0-9/10", "bytes 0 - 9/10", "bytes 0-9 /10",
    ])
    func otherContentRangesAreRefused(text: String) {
        #expect(ContentRange(text) == nil)
    }

    @Test(arguments: [
        ("0", 0), ("7", 7), (" 7 ", 7), ("3600", 60), ("99999999999999999999999", 60),
        ("Sun, 06 Nov 1994 08:49:40 GMT", 3), ("Sunday, 06-Nov-94 08:49:40 GMT", 3), ("Sun Nov  6 08:49:40 1994", 3),
        ("Sun, 06 Nov 1994 08:49:30 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 60),
    ])
    func retryAfterIsReadAndClamped(text: String, seconds: Int64) {
        // 784111777 is Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        #expect(RetryAfter.delay(text, now: 784_111_777, limit: .seconds(60)) == .seconds(seconds))
    }

    @Test(arguments: [
        "", "soon", "-5", "1.5", "7 s", "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT", "0x10",
    ])
    func otherRetryAfterIsNone(text: String) {
        #expect(RetryAfter.delay(text, now: 0, limit: .seconds(60)) == nil)
    }

    @Test func leapDaysAndCenturiesCount() {
        #expect(HTTPDate.seconds("Thu, 01 Jan 1970 00:00:00 GMT") == 0)
        #expect(HTTPDate.seconds("Tue, 29 Feb 2000 00:00:00 GMT") == 951_782_400)
        #expect(HTTPDate.seconds("Sun, 01 Mar 2026 12:00:00 GMT") == 1_772_366_400)
    }

    @Test func challengesOfRealRegistriesAreParsed() {
        #expect(
            AuthChallenge.parse([
                #"Bearer realm="https://auth.example/token",service="registry.example","#
                    + #"scope="repository:a/b:pull,push""#
            ]) == [
                .bearer(
                    realm: "https://auth.example/token", service: "registry.example", scope: "repository:a/b:pull,push",
                    error: nil)
            ])
        #expect(AuthChallenge.parse([#"Basic realm="x""#]) == [.basic(realm: "x")])
        #expect(
            AuthChallenge.parse([
                #"Negotiate abc==, Basic realm="a \"q\" b", charset=UTF-8 , bearer Realm = "r", error="invalid_token""#,
                "basic",
            ]) == [
                .basic(realm: "a \"q\" b"), .bearer(realm: "r", service: nil, scope: nil, error: "invalid_token"),
                .basic(realm: ""),
            ])
    }

    @Test(arguments: [
        "", ",,,", "Bearer", #"Bearer service="x""#, #"Bearer realm="open"#, "Bearer realm=\"a\nb\"", "=", "Digest a=b",
        #"Bearer realm="x" junk"#,
    ])
    func brokenChallengesYieldNothing(text: String) {
        #expect(AuthChallenge.parse([text]) == [])
    }

    @Test func challengesAreLimited() {
        #expect(
            AuthChallenge.parse([String(repeating: "Basic realm=x, ", count: 100)]).count == OCILimits.maxChallenges)
        #expect(AuthChallenge.parse([#"Basic realm=""# + String(repeating: "x", count: 9000) + "\""]) == [])
        let parameters = (0..<100).map { "a\($0)=b" }.joined(separator: ",")
        #expect(AuthChallenge.parse(["Basic " + parameters]) == [])
    }

    @Test func mediaTypesLoseTheirParameters() {
        #expect(MediaTypes.essence(of: "Application/JSON; charset=utf-8") == "application/json")
        for text in ["", "/", "a", "a/b/c", "a /b", "a/", String(repeating: "a", count: 300) + "/b", "a/b\u{0}"] {
            #expect(MediaTypes.essence(of: text) == nil)
        }
    }

    /// Random bytes and mutated good headers: nothing traps, ranges that are accepted are sane.
    @Test func randomHeadersNeverTrap() {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        let good = [
            "bytes 0-99/1000", "bytes */18446744073709551615", "Sun, 06 Nov 1994 08:49:37 GMT", "120",
            #"Bearer realm="https://a/t",service="s",scope="x\"y", Basic realm=q"#, "application/json; x=y",
            "https://h.example:443/a/b?c=%20#d", "//h/x", "../x", "[::ffff:1.2.3.4]",
        ]
        let base = try? HTTPURL("https://registry.example/v2/a")
        for _ in 0..<20_000 {
            var bytes = Array(good[Int.random(in: 0..<good.count, using: &random)].utf8)
            for _ in 0..<Int.random(in: 0..<6, using: &random) where !bytes.isEmpty {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: at)
                default: bytes.insert(contentsOf: bytes[..<at].suffix(20), at: at)
                }
            }
            let text = String(decoding: bytes, as: UTF8.self)
            if let range = ContentRange(text), let part = range.range, let total = range.totalSize {
                #expect(part.upperBound <= total && !part.isEmpty)
            }
            if let delay = RetryAfter.delay(text, now: 5, limit: .seconds(9)) {
                #expect(.zero <= delay && delay <= .seconds(9))
            }
            #expect(AuthChallenge.parse([text, text]).count <= OCILimits.maxChallenges)
            _ = MediaTypes.essence(of: text)
            _ = IPAddress(text)
            if let url = try? base?.resolving(text) {
                // What is accepted prints to something that parses to the same, and holds no control characters.
                #expect((try? HTTPURL(url.description)) == url)
                #expect(url.description.utf8.allSatisfy { $0 > 32 && $0 < 127 })
            }
        }
    }
}

@Suite struct HTTPURLTests {
    @Test(arguments: [
        ("https://r.example", "https://r.example/"), ("HTTPS://R.Example:443/a?b=c#frag", "https://r.example/a?b=c"),
        ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5000/v2/"), ("http://[::1]:80?x", "http://[::1]/?x"),
    ])
    func goodURLsAreNormalised(text: String, expected: String) throws {
        #expect(try HTTPURL(text).description == expected)
    }

    @Test(arguments: [
        "", "r.example", "ftp://r.example/", "https://", "https:///x", "https://u@r.example/", "https://u:p@r.example/",
        "https://r.example\\@evil.example/", "https://r.example /", "https://r.example/a b", "https://r.example/%zz",
        "https://r.example/%2", "https://r.example/../x", "https://r.example/a/./b", "https://r.example:99999/",
        "https://r.example/\r\nX: y", "https://exämple/", "file:///etc/passwd", "https://r.example:/", "https://[::1/",
        "https://r.example/a\u{7F}",
    ])
    func badURLsAreRefused(text: String) {
        #expect(throws: OCISpecError.self) { try HTTPURL(text) }
    }

    @Test func locationsAreResolved() throws {
        let base = try HTTPURL("https://r.example:8443/v2/a/blobs/uploads/?x=1")
        for (location, expected) in [
            ("https://cdn.example/x?sig=a%2Fb", "https://cdn.example/x?sig=a%2Fb"),
            ("/y?z", "https://r.example:8443/y?z"),
            ("//cdn.example/y", "https://cdn.example/y"), ("?q", "https://r.example:8443/v2/a/blobs/uploads/?q"),
            ("uuid", "https://r.example:8443/v2/a/blobs/uploads/uuid"),
        ] {
            #expect(try base.resolving(location).description == expected)
        }
        for location in ["", "javascript:alert(1)", "file:/x", "../../x", "data:,x"] {
            #expect(throws: OCISpecError.self) { try base.resolving(location) }
        }
    }

    @Test func originsDifferInSchemeHostOrPort() throws {
        let origin = try HTTPURL("https://r.example/a").origin
        #expect(try HTTPURL("https://R.example:443/b").origin == origin)
        for other in ["http://r.example/", "https://r.example:444/", "https://x.r.example/", "http://r.example:443/"] {
            #expect(try HTTPURL(other).origin != origin)
        }
    }

    @Test func signaturesStayOutOfMessages() throws {
        #expect(try HTTPURL("https://cdn.example/x?sig=secret").redacted == "https://cdn.example/x?…")
        do throws(OCISpecError) {
            _ = try HTTPURL("https://cdn.example/ x?sig=secret")
            Issue.record("accepted")
        } catch {
            #expect(!error.message.contains("secret"))
        }
        #expect(HTTPURL.encodeQueryValue("sha256:a/b c") == "sha256%3Aa%2Fb%20c")
    }
}
