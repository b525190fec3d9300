import HTTPTransfer
import Synchronization
import TestSupport
import Testing

/// Collects what a sink is given.
final class Received: Sendable {
    private let state = Mutex<[UInt8]>([])
    var bytes: [UInt8] { state.withLock { $0 } }
    func append(_ piece: UnsafeRawBufferPointer) { state.withLock { $0 += piece } }
}

@Suite(.timeLimit(.minutes(2))) struct TransferTests {
    let server: PythonServer
    let client = TransferClient()

    init() throws { server = try OddServer.start() }

    func url(_ path: String) -> String { "http://\(server.host)\(path)" }

    func get(_ path: String, timeouts: TransferTimeouts = TransferTimeouts()) async throws(TransferError)
        -> TransferResult
    {
        try await client.perform(
            TransferRequest(url: url(path), timeouts: timeouts), sink: .collecting(limit: 1 << 20))
    }

    /// The code of the error an exchange ends with, nil when it ends well.
    func failure(_ path: String, timeouts: TransferTimeouts = TransferTimeouts()) async -> TransferError.Code? {
        do throws(TransferError) {
            _ = try await get(path, timeouts: timeouts)
            return nil
        } catch {
            return error.code
        }
    }

    @Test func bodyArrivesWholeAndInOrder() async throws {
        let received = Received()
        let result = try await client.perform(
            TransferRequest(url: url("/bytes/3000000"), bufferSize: .blob),
            sink: TransferSink(
                head: { _ in .deliver(limit: 3_000_000) },
                body: { piece in
                    received.append(piece)
                    return .continue
                }))
        #expect(result.head.status == 200)
        #expect(result.head.contentLength == 3_000_000)
        #expect(result.bytesReceived == 3_000_000)
        #expect(received.bytes == [UInt8](repeating: UInt8(ascii: "x"), count: 3_000_000))
        #expect(!result.isStopped)
        #expect(result.remoteAddress == "127.0.0.1")
    }

    @Test func anIdleConnectionIsUsedAgain() async throws {
        for _ in 0..<5 { _ = try await get("/bytes/10") }
        let last = try await get("/bytes/10")
        #expect(last.isConnectionReused)
        #expect(server.log.split(separator: "\n").filter { $0 == "CONNECT" }.count == 1)
    }

    @Test func methodHeadersRangeAndBodyAreSentAsGiven() async throws {
        var request = TransferRequest(
            .put, url: url("/echo"), headers: [("X-One", "1"), ("Authorization", "Basic abc"), ("X-Empty", "")],
            body: .bytes(Array("hello".utf8)))
        var text = String(
            decoding: try await client.perform(request, sink: .collecting(limit: 4096)).body, as: UTF8.self)
        #expect(text.hasPrefix("PUT "))
        #expect(text.contains("('x-one', '1')"))
        #expect(text.contains("('authorization', 'Basic abc')"))
        #expect(text.contains("('x-empty', '')"))
        #expect(text.contains("('content-length', '5')"))
        #expect(!text.contains("expect"))
        #expect(text.hasSuffix("\nhello"))
        request = TransferRequest(.get, url: url("/echo"), range: 10..<20)
        text = String(decoding: try await client.perform(request, sink: .collecting(limit: 4096)).body, as: UTF8.self)
        #expect(text.contains("('range', 'bytes=10-19')"))
        request = TransferRequest(.post, url: url("/echo"))
        text = String(decoding: try await client.perform(request, sink: .collecting(limit: 4096)).body, as: UTF8.self)
        #expect(text.hasPrefix("POST ") && text.contains("('content-length', '0')"))
        request = TransferRequest(.delete, url: url("/echo"))
        text = String(decoding: try await client.perform(request, sink: .collecting(limit: 4096)).body, as: UTF8.self)
        #expect(text.hasPrefix("DELETE "))
    }

    @Test func aHeaderThatWouldSplitTheRequestIsRefused() async {
        for header in [("X-A", "1\r\nX-B: 2"), ("X A", "1"), ("X-A\n", "1"), ("", "1")] {
            await #expect(throws: TransferError.self) {
                _ = try await client.perform(
                    TransferRequest(url: url("/echo"), headers: [header]), sink: .collecting(limit: 4096))
            }
        }
        #expect(!server.log.contains("REQUEST"))
    }

    @Test func headHasNoBody() async throws {
        let result = try await client.perform(
            TransferRequest(.head, url: url("/head")), sink: .collecting(limit: 10))
        #expect(result.head.contentLength == 12345)
        #expect(result.body.isEmpty)
        let empty = try await get("/204")
        #expect(empty.head.status == 204)
    }

    @Test func interimResponsesAndTrailersAreNotTheResponse() async throws {
        let interim = try await get("/interim")
        #expect(interim.head.status == 200)
        #expect(interim.head.first("x-final") == "1")
        #expect(interim.head.first("Link") == nil)
        let chunked = try await get("/chunked")
        #expect(chunked.body == Array("hello world".utf8))
        #expect(chunked.head.first("X-Trailer") == nil)
    }

    @Test func redirectsAreNotFollowed() async throws {
        let result = try await get("/redirect")
        #expect(result.head.status == 307)
        #expect(result.head.first("location") == "/bytes/5")
        #expect(!server.log.contains("/bytes/5"))
    }

    @Test func everyWayToFailHasItsCode() async {
        let quick = TransferTimeouts(
            firstByte: .milliseconds(200), progressWindow: .milliseconds(300), progressBytes: 1000)
        #expect(await failure("/short") == .shortBody)
        #expect(await failure("/reset") == .connectionReset)
        #expect(await failure("/many-headers") == .headersTooLarge)
        #expect(await failure("/large-headers") == .headersTooLarge)
        #expect(await failure("/bytes/1048577") == .bodyTooLarge)
        #expect(await failure("/garbage") == .malformedResponse)
        #expect(await failure("/silent", timeouts: quick) == .firstByteTimeout)
        #expect(await failure("/trickle", timeouts: quick) == .progressTimeout)
        #expect(await failure("/trickle", timeouts: TransferTimeouts(total: .milliseconds(200))) == .totalTimeout)
        #expect(await failure("/negative") == .malformedResponse)
    }

    @Test func aContentLengthThatNoNumberHoldsIsNone() async throws {
        let result = try await get("/absurd")
        #expect(result.head.contentLength == nil)
        #expect(result.body == [UInt8(ascii: "x")])
    }

    @Test func aSinkIsNeverGivenMoreThanItsLimit() async throws {
        let received = Received()
        do throws(TransferError) {
            _ = try await client.perform(
                TransferRequest(url: url("/bytes/500000")),
                sink: TransferSink(
                    head: { _ in .deliver(limit: 100_000) },
                    body: { piece in
                        received.append(piece)
                        return .continue
                    }))
            Issue.record("no limit")
        } catch {
            #expect(error.code == .bodyTooLarge)
            #expect(error.bytesDelivered == UInt64(received.bytes.count))
        }
        #expect(received.bytes.count <= 100_000)
    }

    @Test func nobodyListeningAndUnknownNamesAreToldApart() async throws {
        let port = try Ports.free()
        for (url, code) in [
            ("http://127.0.0.1:\(port)/", TransferError.Code.connect), ("http://nowhere.invalid/", .nameResolution),
            ("ftp://127.0.0.1/", .malformedResponse), ("http://u:p@127.0.0.1/", .other),
        ] {
            do throws(TransferError) {
                _ = try await client.perform(TransferRequest(url: url), sink: .collecting(limit: 10))
                Issue.record("\(url) answered")
            } catch {
                #expect(error.code == code, "\(url): \(error)")
            }
        }
    }

    @Test func connectTimeoutEndsAHandshakeThatNeverComes() async throws {
        // The server accepts and says nothing: the TLS handshake is part of connecting.
        do throws(TransferError) {
            _ = try await client.perform(
                TransferRequest(
                    url: "https://\(server.host)/", timeouts: TransferTimeouts(connect: .milliseconds(300))),
                sink: .collecting(limit: 10))
            Issue.record("answered")
        } catch {
            #expect(error.code == .connectTimeout)
        }
    }

    @Test func aSinkMayStopEarlyWhichIsNoError() async throws {
        let received = Received()
        let result = try await client.perform(
            TransferRequest(url: url("/bytes/5000000")),
            sink: TransferSink(
                head: { _ in .deliver(limit: .max) },
                body: { piece in
                    received.append(piece)
                    return received.bytes.count >= 100_000 ? .stop : .continue
                }))
        #expect(result.isStopped)
        #expect((100_000..<5_000_000).contains(received.bytes.count))
        let atHead = try await client.perform(
            TransferRequest(url: url("/bytes/5000000")),
            sink: TransferSink(head: { _ in .stop }, body: { _ in .continue }))
        #expect(atHead.isStopped && atHead.head.status == 200 && atHead.bytesReceived == 0)
        let truncated = try await client.perform(
            TransferRequest(url: url("/bytes/5000")),
            sink: TransferSink(head: { _ in .collect(limit: 100, truncating: true) }, body: { _ in .stop }))
        #expect(truncated.body.count == 100)
    }

    @Test func aPausedPieceIsOfferedAgainAndTimeoutsRest() async throws {
        let received = Received()
        let (pauses, continuation) = AsyncStream.makeStream(of: Void.self)
        let pausing = Mutex(3)
        let control = client.makeControl()
        // Resumes 300 ms after each pause, more than the progress window.
        let resumer = Task {
            for await _ in pauses {
                // The pause is what is tested: it must not count as silence of the server.
                try await Task.sleep(for: .milliseconds(300))
                control.resume()
            }
        }
        let result = try await client.perform(
            TransferRequest(
                url: url("/bytes/2000000"),
                timeouts: TransferTimeouts(progressWindow: .milliseconds(150), progressBytes: 1)),
            control: control,
            sink: TransferSink(
                head: { _ in .deliver(limit: .max) },
                body: { piece in
                    let pausesNow = pausing.withLock { left in
                        let isDue = left > 0 && received.bytes.count >= (4 - left) * 300_000
                        if isDue { left -= 1 }
                        return isDue
                    }
                    if pausesNow {
                        continuation.yield()
                        return .pause
                    }
                    received.append(piece)
                    return .continue
                }))
        continuation.finish()
        _ = try await resumer.value
        #expect(pausing.withLock { $0 } == 0)
        #expect(received.bytes.count == 2_000_000)
        #expect(result.bytesReceived == 2_000_000)
    }

    @Test func cancellingTheTaskEndsTheExchange() async throws {
        let task = Task { () -> TransferError.Code? in await failure("/silent") }
        #expect(await Wait.eventually(.seconds(30)) { server.log.contains("/silent") })
        task.cancel()
        #expect(await task.value == .cancelled)
        let late = Task { () -> TransferError.Code? in
            while !Task.isCancelled { await Task.yield() }
            return await failure("/silent")
        }
        late.cancel()
        #expect(await late.value == .cancelled)
    }

    @Test func uploadsStreamFromAFile() async throws {
        let directory = try TemporaryDirectory()
        var generator = SeededGenerator(seed: 7)
        let content = generator.bytes(700_000)
        let file = try directory.write("blob", content)
        let descriptor = try OpenFile(file)
        let result = try await client.perform(
            TransferRequest(
                .put, url: url("/echo"), body: .file(descriptor: descriptor.number, offset: 100, length: 600_000)),
            sink: .collecting(limit: 1 << 20))
        let newline = try #require(result.body.firstIndex(of: 10))
        #expect(Array(result.body[(newline + 1)...]) == Array(content[100..<600_100]))
        do throws(TransferError) {
            _ = try await client.perform(
                TransferRequest(
                    .put, url: url("/echo"), body: .file(descriptor: descriptor.number, offset: 0, length: 700_001)),
                sink: .collecting(limit: 1 << 20))
            Issue.record("a file that is too short was sent")
        } catch {
            #expect(error.code == .uploadRead)
        }
        let refused = try await client.perform(
            TransferRequest(
                .put, url: url("/refuse-upload"), body: .file(descriptor: descriptor.number, offset: 0, length: 100)),
            sink: .collecting(limit: 100))
        #expect(refused.head.status == 401)
    }

    @Test func theAddressPolicySeesTheConnectedAddress() async throws {
        let seen = Mutex<[String]>([])
        var request = TransferRequest(
            url: "http://localhost:\(server.port)/echo",
            addressPolicy: .only { address in
                seen.withLock { $0.append(address) }
                return false
            })
        // Twice: the second finds the connection of the first, if it was kept, and must be refused as well.
        for _ in 0..<2 {
            do throws(TransferError) {
                _ = try await client.perform(request, sink: .collecting(limit: 4096))
                Issue.record("sent to a refused address")
            } catch {
                #expect(error.code == .addressRefused)
            }
        }
        #expect(seen.withLock { $0 } == ["127.0.0.1", "127.0.0.1"])
        #expect(!server.log.contains("REQUEST"))
        request.addressPolicy = .any
        #expect(try await client.perform(request, sink: .collecting(limit: 4096)).head.status == 200)
        request.addressPolicy = .only { _ in false }
        await #expect(throws: TransferError.self) {
            _ = try await client.perform(request, sink: .collecting(limit: 4096))
        }
        #expect(server.log.split(separator: "\n").filter { $0.hasPrefix("REQUEST") }.count == 1)
    }

    @Test func unixSocketsAreConnectedToInPlaceOfTheHost() async throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/control.sock"
        let local = try OddServer.start(unixSocket: path)
        for _ in 0..<2 {
            let result = try await client.perform(
                TransferRequest(.post, url: "http://chunkd/echo", body: .bytes([65]), unixSocketPath: path),
                sink: .collecting(limit: 4096))
            #expect(String(decoding: result.body, as: UTF8.self).contains("('host', 'chunkd')"))
            #expect(result.remoteAddress == nil)
        }
        #expect(local.log.split(separator: "\n").filter { $0 == "CONNECT" }.count == 1)
        do throws(TransferError) {
            _ = try await client.perform(
                TransferRequest(url: "http://chunkd/echo", unixSocketPath: path + ".none"), sink: .collecting(limit: 10)
            )
            Issue.record("answered")
        } catch {
            #expect(error.code == .connect)
        }
    }

    @Test func shuttingDownAnswersEverythingAndRefusesMore() async throws {
        let own = TransferClient(limits: TransferLimits(onDemandPerOrigin: 1))
        let target = url("/silent")
        let tasks = (0..<5).map { _ in
            Task { () -> TransferError.Code? in
                do throws(TransferError) {
                    _ = try await own.perform(TransferRequest(url: target), sink: .collecting(limit: 10))
                    return nil
                } catch {
                    return error.code
                }
            }
        }
        #expect(await Wait.eventually(.seconds(30)) { server.log.contains("/silent") })
        await own.shutDown()
        for task in tasks { #expect(await task.value == .shutDown) }
        await #expect(throws: TransferError.self) {
            _ = try await own.perform(TransferRequest(url: target), sink: .collecting(limit: 10))
        }
    }
}
