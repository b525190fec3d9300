import ChunkModel
import ControlAPI
import Foundation
import Glibc
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing

/// A server on a socket in a directory of its own.
private final class Fixture: Sendable {
    let service = FakeService()
    let directory: String
    let socket: String
    let server: ControlServer

    init(
        limits: ControlServerLimits = ControlServerLimits(),
        mayUse: @escaping @Sendable (UInt32) -> Bool = { $0 == geteuid() }
    ) async throws {
        directory = "/tmp/chunkd-api-\(UUID().uuidString.prefix(8))"
        socket = directory + "/control.sock"
        server = try await Self.start(socket, service, limits: limits, mayUse: mayUse)
    }

    static func start(
        _ socket: String, _ service: FakeService, limits: ControlServerLimits = ControlServerLimits(),
        mayUse: @escaping @Sendable (UInt32) -> Bool = { $0 == geteuid() }
    ) async throws -> ControlServer {
        try await ControlServer.start(
            path: socket, group: MultiThreadedEventLoopGroup.singleton, service: service,
            logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }), limits: limits, mayUse: mayUse)
    }

    var client: ControlClient { ControlClient(socketPath: socket) }

    func end() async {
        await server.stop()
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Connects, sends bytes, and reads until the server closes or `seconds` have passed (then nil).
    func exchange(_ bytes: [UInt8], seconds: Int = 20) async throws -> String? {
        let socket = socket
        return try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try rawExchange(socket, bytes, seconds) }) }
        }
    }
}

private func rawExchange(_ path: String, _ bytes: [UInt8], _ seconds: Int) throws -> String? {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let connected = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    try #require(connected == 0)
    var time = timeval(tv_sec: seconds, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    // The server may stop reading early; what it says then is still read below.
    _ = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    var out: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0 { return errno == ECONNRESET ? String(decoding: out, as: UTF8.self) : nil }
        if count == 0 { return String(decoding: out, as: UTF8.self) }
        out += buffer[..<count]
    }
}

private func post(_ path: String, _ body: String, more: String = "") -> [UInt8] {
    Array("POST \(path) HTTP/1.1\r\nhost: x\r\n\(more)content-length: \(body.utf8.count)\r\n\r\n\(body)".utf8)
}

@Suite struct ControlRoundTripTests {
    @Test func everyCallComesBackAsItWasSent() async throws {
        let fixture = try await Fixture()
        let client = fixture.client
        #expect(
            try await client.mount(MountRequest(reference: "r.example/a:1", pinnedDigest: FakeService.digest))
                == FakeService.mountReply)
        #expect(try await client.umount(UmountRequest(manifestDigest: FakeService.digest)).released)
        #expect(try await client.images().images == FakeService.stat.images)
        #expect(try await client.stat() == FakeService.stat)
        #expect(try await client.doctor().checks.map(\.status) == [.warn])
        #expect(try await client.version().version == "1.2.3")
        #expect(try await client.collectGarbage(GarbageRequest(dryRun: true)).dryRun)
        for pinned in [true, false] {
            let reply = try await client.pin(PinRequest(reference: "r.example/a:1", pinned: pinned))
            #expect(
                reply == PinReply(reference: "r.example/a:1", manifestDigest: FakeService.digest, pinned: pinned))
        }
        #expect(try await client.explain(ExplainRequest(subject: "r.example/a:1")) == FakeService.explained)
        #expect(try await client.faults() == FakeService.faults)
        #expect(try await client.spans(SpansRequest(trace: FakeService.trace)) == FakeService.spans)
        #expect(try await client.events(EventsRequest(after: 6)).events == [FakeService.event])
        #expect(try await client.events(EventsRequest()).missed == 2)
        var change = LimitsRequest()
        change.downloadBytesPerSecond = 7
        #expect(try await client.limits().uploadBytesPerSecond == 5)
        #expect(try await client.limits(change).downloadBytesPerSecond == 7)
        #expect(try await client.endTrace(TraceRequest(reference: "a")).ended)
        #expect(try await !client.endTrace(TraceRequest(reference: "b")).ended)
        #expect(
            fixture.service.calls == [
                "mount r.example/a:1 abababababab", "umount", "events 6", "events all", "limits", "limits changed",
                "end trace a", "end trace b",
            ])
        await fixture.end()
    }

    @Test func longCallsReportProgressAndThenTheirResult() async throws {
        var limits = ControlServerLimits()
        limits.progressInterval = .zero
        let fixture = try await Fixture(limits: limits)
        let seen = Mutex<[UInt64]>([])
        let reply = try await fixture.client.prefetch(PrefetchRequest(reference: "a")) { report in
            seen.withLock { $0.append(report.doneChunks) }
        }
        #expect(reply.filledChunks == 3)
        #expect(seen.withLock { $0 } == [0, 1, 2, 3])
        let verified = try await fixture.client.verify(VerifyRequest(reference: "a", repair: true)) { _ in }
        seen.withLock { $0 = [] }
        let drained = try await fixture.client.drain(DrainRequest()) { report in
            seen.withLock { $0.append(report.totalChunks) }
        }
        #expect(drained.announced && drained.missingChunks == 1)
        #expect(seen.withLock { $0 } == [4])
        seen.withLock { $0 = [] }
        let traced = try await fixture.client.recordTrace(TraceRequest(reference: "a")) { report in
            seen.withLock { $0.append(report.totalChunks) }
        }
        #expect(traced == FakeService.traceReply, "a trace of 1.4 MB comes as one line")
        #expect(seen.withLock { $0 } == [5])
        #expect(verified.badChunks == 2000 && verified.bad.count == VerifyReply.maxListed)
        await fixture.end()
    }

    @Test func progressIsThinnedOut() async throws {
        let fixture = try await Fixture()
        let seen = Mutex(0)
        _ = try await fixture.client.prefetch(PrefetchRequest(reference: "a")) { _ in seen.withLock { $0 += 1 } }
        #expect(seen.withLock { $0 } == 1)
        await fixture.end()
    }

    @Test func errorsKeepCodeMessageAndHint() async throws {
        let fixture = try await Fixture()
        let client = fixture.client
        func error(_ body: () async throws -> Void) async -> ControlError? {
            do { try await body() } catch { return error as? ControlError }
            return nil
        }
        let expected = ControlError(.notFound, "no such image: missing", hint: "check the tag")
        #expect(await error { _ = try await client.mount(MountRequest(reference: "missing")) } == expected)
        let defect = await error { _ = try await client.mount(MountRequest(reference: "defect")) }
        #expect(defect == ControlError(.internal, "mount: something odd"))
        let early = await error { _ = try await client.prefetch(PrefetchRequest(reference: "missing")) { _ in } }
        #expect(early?.code == .notFound)
        let late = await error { _ = try await client.prefetch(PrefetchRequest(reference: "broken")) { _ in } }
        #expect(late == ControlError(.integrity, "chunk 7 has wrong bytes", hint: "tell them"))
        await fixture.end()
    }

    @Test func aMissingServerIsNamedWithWhatToDo() async throws {
        let client = ControlClient(socketPath: "/nonexistent/control.sock")
        let error = await #expect(throws: ControlError.self) { try await client.version() }
        #expect(error?.code == .agentAway)
        #expect(error?.message.contains("/nonexistent/control.sock") == true)
        #expect(error?.hint.contains("start chunkd") == true)
    }

    @Test func aNewerServersUnknownKindOfEventIsOther() throws {
        let event: NodeEvent = try ControlJSON.decode(
            from: Array(
                #"{"number":1,"unixSeconds":1,"kind":"fromTheFuture","subject":"a","detail":"","count":1}"#.utf8),
            what: "event")
        #expect(event.kind == .other)
    }

    @Test func aNewerServersUnknownErrorCodeIsInternal() throws {
        let error: ControlError = try ControlJSON.decode(
            from: Array(#"{"code":"fromTheFuture","message":"m"}"#.utf8), what: "error")
        #expect(error == ControlError(.internal, "m"))
    }
}

@Suite struct ControlBoundsTests {
    @Test func aBodyOver64KiBIsRefused() async throws {
        let fixture = try await Fixture()
        let reference = String(repeating: "a", count: 64 << 10)
        let answer = try await fixture.exchange(post("/v1/mounts", #"{"reference":"\#(reference)"}"#))
        #expect(answer?.hasPrefix("HTTP/1.1 413 ") == true, "\(answer ?? "no answer")")
        #expect(answer?.contains(#""code":"tooLarge""#) == true)
        #expect(fixture.service.calls.isEmpty)
        // The largest that is allowed passes.
        let largest = String(repeating: "a", count: (64 << 10) - #"{"reference":""}"#.utf8.count)
        let fine = try await fixture.exchange(
            post("/v1/mounts", #"{"reference":"\#(largest)"}"#, more: "connection: close\r\n"))
        #expect(fine?.hasPrefix("HTTP/1.1 200 ") == true)
        await fixture.end()
    }

    @Test(arguments: [
        (post("/v1/mounts", "{}", more: "connection: close\r\n"), "400", "reference is missing"),
        (post("/v1/mounts", "[", more: "connection: close\r\n"), "400", "not JSON"),
        (post("/v1/mounts", #"{"reference":1}"#, more: "connection: close\r\n"), "400", "reference: expected"),
        (
            post("/v1/umounts", #"{"manifestDigest":"sha256:../x"}"#, more: "connection: close\r\n"), "400",
            "manifestDigest: not a sha256 digest"
        ),
        (
            post("/v1/gc", #"{"dryRun":true,"apiVersion":"chunkd/v9"}"#, more: "connection: close\r\n"), "400",
            "expected chunkd/v1, found chunkd/v9"
        ),
        (post("/v1/explain", "{}", more: "connection: close\r\n"), "400", "subject is missing"),
        (post("/v1/drain", "{}", more: "connection: close\r\n"), "400", "hydrate is missing"),
        (post("/v1/events", #"{"after":-1}"#, more: "connection: close\r\n"), "400", "not JSON, or a number"),
        (post("/v1/faults", "", more: "connection: close\r\n"), "404", "no route POST /v1/faults"),
        (post("/v1/stat", "", more: "connection: close\r\n"), "404", "no route POST /v1/stat"),
        (Array("GET /v2/stat HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".utf8), "404", "no route"),
        (Array("nonsense\r\n\r\n".utf8), "400", "Bad Request"),
    ])
    func whatIsNoRequestIsExplained(request: [UInt8], status: String, text: String) async throws {
        let fixture = try await Fixture()
        let answer = try #require(try await fixture.exchange(request))
        #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
        #expect(answer.contains(text), "\(answer)")
        await fixture.end()
    }

    @Test func aRequestThatNeverEndsIsCutOff() async throws {
        var limits = ControlServerLimits()
        limits.requestDeadline = .milliseconds(200)
        let fixture = try await Fixture(limits: limits)
        let silent = try await fixture.exchange([])
        #expect(silent == "")
        let half = try await fixture.exchange(
            Array("POST /v1/gc HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{".utf8))
        #expect(half == "")
        await fixture.end()
    }

    @Test func aCallThatTakesTooLongIsCancelledAndSaidSo() async throws {
        var limits = ControlServerLimits()
        limits.callDeadline = .milliseconds(200)
        let fixture = try await Fixture(limits: limits)
        let error = await #expect(throws: ControlError.self) {
            try await fixture.client.mount(MountRequest(reference: "slow"))
        }
        #expect(error?.code == .deadline)
        #expect(await fixture.service.slowMountWasCancelled())
        await fixture.end()
    }

    @Test func aClientThatGoesAwayCancelsItsCall() async throws {
        let fixture = try await Fixture()
        _ = try await fixture.exchange(post("/v1/mounts", #"{"reference":"slow"}"#), seconds: 1)
        #expect(await fixture.service.slowMountWasCancelled())
        await fixture.end()
    }

    @Test func stoppingTheServerEndsRunningCallsAndRemovesTheSocket() async throws {
        let fixture = try await Fixture()
        let client = fixture.client
        let call = Task { try await client.mount(MountRequest(reference: "slow")) }
        #expect(await fixture.service.mountWasCalled())
        await fixture.end()
        await #expect(throws: ControlError.self) { try await call.value }
        #expect(access(fixture.socket, F_OK) != 0)
    }

    @Test func connectionsAreBounded() async throws {
        var limits = ControlServerLimits()
        limits.connections = 1
        let fixture = try await Fixture(limits: limits)
        let client = fixture.client
        let call = Task { try await client.mount(MountRequest(reference: "slow")) }
        #expect(await fixture.service.mountWasCalled())
        let error = await #expect(throws: ControlError.self) {
            try await ControlClient(socketPath: fixture.socket).stat()
        }
        #expect(error?.code == .busy)
        call.cancel()
        _ = await call.result
        await fixture.end()
    }
}

@Suite struct ControlSocketTests {
    @Test func directoryAndSocketAreForOneUserOnly() async throws {
        let fixture = try await Fixture()
        var status = stat()
        #expect(lstat(fixture.directory, &status) == 0 && status.st_mode & 0o7777 == 0o700)
        #expect(lstat(fixture.socket, &status) == 0 && status.st_mode & 0o7777 == 0o600)
        await fixture.end()
    }

    @Test func aUserWhoMayNotIsRefusedByTheKernelsWord() async throws {
        let fixture = try await Fixture(mayUse: { $0 != geteuid() })
        let error = await #expect(throws: ControlError.self) { try await fixture.client.version() }
        #expect(error?.code == .forbidden)
        #expect(error?.message.contains("user \(geteuid()) ") == true)
        await fixture.end()
    }

    @Test func aDeadSocketIsReplacedALiveOneIsNot() async throws {
        let fixture = try await Fixture()
        let error = await #expect(throws: ControlError.self) {
            try await Fixture.start(fixture.socket, FakeService())
        }
        #expect(error?.code == .conflict && error?.message.contains("another chunkd") == true)
        #expect(try await fixture.client.version().version == "1.2.3")
        // A dead server's socket: bound, never listened on.
        let dead = fixture.directory + "/dead.sock"
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: dead.utf8) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        close(descriptor)
        try #require(bound == 0)
        let second = try await Fixture.start(dead, FakeService())
        #expect(try await ControlClient(socketPath: dead).version().version == "1.2.3")
        await second.stop()
        await fixture.end()
    }

    @Test func whatIsNoSocketIsNotRemoved() async throws {
        let directory = "/tmp/chunkd-api-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = directory + "/control.sock"
        try Data("precious".utf8).write(to: URL(filePath: path))
        let error = await #expect(throws: ControlError.self) { try await Fixture.start(path, FakeService()) }
        #expect(error?.code == .conflict)
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "precious")
    }
}
