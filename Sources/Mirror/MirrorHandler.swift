import NIOCore
import NIOHTTP1

/// One connection of the endpoint: one request after the other (NIO's pipeline handler sees to that).
///
/// All state belongs to the channel's event loop. Each request has a number, so that what comes of an earlier one is
/// ignored.
final class MirrorHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let responder: any MirrorResponder
    private let limits: MirrorServerLimits
    private var context: ChannelHandlerContext?
    private var head: HTTPRequestHead?
    private var work: Task<Void, Never>?
    private var deadline: Scheduled<Void>?
    private var number: UInt64 = 0

    init(responder: any MirrorResponder, limits: MirrorServerLimits) {
        self.responder = responder
        self.limits = limits
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        setDeadline(limits.idleTimeout)
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private func end() {
        number += 1
        work?.cancel()
        work = nil
        deadline?.cancel()
        deadline = nil
        context = nil
    }

    private func setDeadline(_ time: TimeAmount?) {
        deadline?.cancel()
        guard let time, let context else { return deadline = nil }
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: time) { [weak self] in
            self?.context?.close(promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        // Nothing that is asked for here has a body.
        case .body: context.close(promise: nil)
        case .end:
            guard let head else { return }
            self.head = nil
            begin(head)
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        guard let context else { return }
        setDeadline(nil)
        number += 1
        let (loop, responder, number) = (context.eventLoop, responder, number)
        let this = NIOLoopBound(self, eventLoop: loop)
        let call = MirrorCall(
            method: head.method.rawValue, target: head.uri,
            fields: head.headers.map { (name: $0.name, value: $0.value) })
        let (isHead, isLast) = (head.method == .HEAD, !head.isKeepAlive)
        let exchange = MirrorExchange(
            write: { answer in loop.execute { this.value.write(answer, isHead: isHead, isLast: isLast, number) } },
            send: { buffer in
                let promise = loop.makePromise(of: Void.self)
                loop.execute { this.value.send(buffer, number, promise) }
                try await promise.futureResult.get()
            },
            finish: { isWhole in loop.execute { this.value.finish(isWhole: isWhole, isLast: isLast, number) } })
        work = exchange.begin(call, responder, isHead: isHead)
    }

    // MARK: - On the event loop

    private func write(_ answer: MirrorAnswer, isHead: Bool, isLast: Bool, _ request: UInt64) {
        guard request == number, let context else { return }
        var headers = HTTPHeaders(answer.headers.map { ($0.name, $0.value) })
        headers.add(name: "Docker-Distribution-Api-Version", value: "registry/2.0")
        // HEAD says how long the body would be.
        if !headers.contains(name: "Content-Length") {
            headers.add(name: "Content-Length", value: String(answer.body.length))
        }
        if isLast { headers.add(name: "Connection", value: "close") }
        let head = HTTPResponseHead(
            version: .http1_1, status: HTTPResponseStatus(statusCode: answer.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if !isHead, case .bytes(let bytes) = answer.body, !bytes.isEmpty {
            let buffer = context.channel.allocator.buffer(bytes: bytes)
            context.write(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
        }
    }

    private func send(_ buffer: ByteBuffer, _ request: UInt64, _ promise: EventLoopPromise<Void>) {
        guard request == number, let context else { return promise.fail(ChannelError.ioOnClosedChannel) }
        setDeadline(limits.stallTimeout)
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: promise)
    }

    private func finish(isWhole: Bool, isLast: Bool, _ request: UInt64) {
        guard request == number, let context else { return }
        work = nil
        guard isWhole else { return context.close(promise: nil) }
        setDeadline(limits.idleTimeout)
        let promise = context.eventLoop.makePromise(of: Void.self)
        if isLast {
            let channel = context.channel
            promise.futureResult.whenComplete { _ in channel.close(promise: nil) }
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: promise)
    }
}

/// One request on its way through the responder, away from the event loop.
private struct MirrorExchange: Sendable {
    let write: @Sendable (MirrorAnswer) -> Void
    let send: @Sendable (ByteBuffer) async throws -> Void
    let finish: @Sendable (_ isWhole: Bool) -> Void

    func begin(_ call: MirrorCall, _ responder: any MirrorResponder, isHead: Bool) -> Task<Void, Never> {
        Task {
            let answer = await responder.respond(to: call)
            write(answer)
            var isWhole = true
            if !isHead { isWhole = await send(answer.body) }
            finish(isWhole)
        }
    }

    /// Passes on what comes, each piece once the client has taken the last; false when it did not come to its end.
    private func send(_ body: MirrorAnswer.Body) async -> Bool {
        // Bytes went with the head.
        guard case .stream(let body, let length) = body else { return true }
        var left = length
        while left > 0 {
            guard let piece = await body.next(), piece.readableBytes > 0, UInt64(piece.readableBytes) <= left else {
                return false
            }
            left -= UInt64(piece.readableBytes)
            do { try await send(piece) } catch { return false }
        }
        return true
    }
}
