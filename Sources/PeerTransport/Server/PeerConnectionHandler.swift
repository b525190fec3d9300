import ChunkModel
import NIOCore
import NIOHTTP1
import NIOSSL
import NIOTLS

/// One connection of the peer server: its handshake, then one request after the other, each within its bounds.
///
/// All state belongs to the channel's event loop. Each answer has a number, so that what comes of an earlier one is
/// ignored.
final class PeerConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private enum State {
        case handshaking
        case idle
        case receiving(HTTPRequestHead, body: [UInt8], limit: Int)
        /// The handler thinks.
        case answering(Task<Void, Never>, isLast: Bool)
        case sending(Sending)
        /// Nothing more is read or written.
        case closing
    }

    /// A body on its way.
    private struct Sending {
        let source: any PeerBodySource
        var left: UInt64
        let isLast: Bool
        /// The source has said `wait`.
        var isWaiting = false
    }

    private let handshake: PeerHandshake
    private let connections: PeerConnections
    private let handler: any PeerRequestHandler
    private let limits: PeerServerLimits
    /// Set before the handler is added.
    var meter: RequestMeter?

    private var state = State.handshaking
    private var context: ChannelHandlerContext?
    private var deadline: Scheduled<Void>?
    private var number: UInt64 = 0
    private var isDraining = false
    /// Whom the connection belongs to; nil before the end of the handshake.
    private var peer: NodeName?
    private var isPumping = false

    init(
        handshake: PeerHandshake, connections: PeerConnections, handler: any PeerRequestHandler,
        limits: PeerServerLimits
    ) {
        self.handshake = handshake
        self.connections = connections
        self.handler = handler
        self.limits = limits
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        meter?.onFirst = { [weak self] in self?.firstByte() }
        meter?.reset(limit: limits.headBytes)
        setDeadline(limits.handshakeTimeout)
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    // MARK: Handshake

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted(let negotiated) = event as? TLSUserEvent {
            handshakeCompleted(negotiated, context)
        }
        context.fireUserInboundEventTriggered(event)
    }

    private func handshakeCompleted(_ negotiated: String?, _ context: ChannelHandlerContext) {
        guard case .handshaking = state else { return }
        do throws(IdentityError) {
            let tls = try? context.pipeline.syncOperations.handler(type: NIOSSLServerHandler.self)
            let (peer, chain) = try handshake.complete(negotiated, tls)
            let this = NIOLoopBound(self, eventLoop: context.eventLoop)
            let loop = context.eventLoop
            try connections.enter(
                PeerConnections.Member(
                    channel: context.channel, peer: peer, chain: chain, address: handshake.address,
                    verifier: handshake.identity.verifier, drain: { loop.execute { this.value.drain() } }))
            connections.endHandshake(handshake.address)
            self.peer = peer.name
            state = .idle
            setDeadline(limits.idleTimeout)
        } catch {
            refuse(error)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        switch state {
        case .handshaking:
            guard let failure = handshake.failure(error) else { return close() }
            refuse(failure)
        case .idle, .receiving:
            // A peer that closes within its request has given it up: it has done nothing wrong.
            guard let error = error as? HTTPParserError, error != .invalidEOFState else { return close() }
            refuse(IdentityError(error == .headerOverflow ? .headersTooLarge : .malformedRequest, "\(error)"))
        case .answering, .sending, .closing: close()
        }
    }

    // MARK: Requests

    private func firstByte() {
        if case .idle = state { setDeadline(limits.requestTimeout) }
    }

    func exceedsLimit() {
        switch state {
        case .handshaking, .closing: close()
        case .receiving: refuse(IdentityError(.bodyTooLarge, "request body over its limit"))
        case .idle: refuse(IdentityError(.headersTooLarge, "request head over \(limits.headBytes) bytes"))
        case .answering, .sending: refuse(IdentityError(.pipelined, "a request before the answer to the last"))
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (unwrapInboundIn(data), state) {
        case (.head(let head), .idle): begin(head)
        case (.body(let part), .receiving(let head, var body, let limit)):
            // The state lets go of the array first: appended in place, not copied.
            state = .closing
            guard body.count + part.readableBytes <= limit else {
                state = .receiving(head, body: [], limit: limit)
                return refuse(IdentityError(.bodyTooLarge, "request body over \(limit) bytes"))
            }
            body.append(contentsOf: part.readableBytesView)
            state = .receiving(head, body: body, limit: limit)
        case (.end, .receiving(let head, let body, _)): answer(head, body)
        case (.head, .answering), (.head, .sending):
            refuse(IdentityError(.pipelined, "a request before the answer to the last"))
        default: break
        }
    }

    private func begin(_ head: HTTPRequestHead) {
        let limit = handler.bodyLimit(method: head.method.rawValue, target: head.uri)
        // What the framing of a chunked body costs, twice over.
        meter?.limit = limits.headBytes + limit * 2
        state = .receiving(head, body: [], limit: limit)
    }

    private func answer(_ head: HTTPRequestHead, _ body: [UInt8]) {
        guard let context, let peer else { return }
        number += 1
        let (number, loop, handler) = (number, context.eventLoop, handler)
        let this = NIOLoopBound(self, eventLoop: loop)
        let request = PeerRequest(
            peer: peer, method: head.method.rawValue, target: head.uri,
            headers: head.headers.map { (name: $0.name, value: $0.value) }, body: body)
        setDeadline(limits.answerTimeout)
        let work: @Sendable () async -> Void = {
            let response = await handler.respond(to: request)
            loop.execute { this.value.respond(response, number) }
        }
        meter?.reset(limit: limits.headBytes)
        // What only looks something up is begun right here: two hops between threads cost more than the look-up. What
        // brings a body has it decoded and checked, which is not for an event loop.
        let task = body.isEmpty ? Task.immediate(operation: work) : Task(operation: work)
        state = .answering(task, isLast: !head.isKeepAlive)
    }

    // MARK: Answers

    private func respond(_ response: PeerResponse, _ answer: UInt64) {
        guard answer == number, case .answering(_, let asksLast) = state, let context else {
            if case .source(let source, _) = response.body { source.close(isComplete: false) }
            return
        }
        let isLast = asksLast || isDraining
        let length: UInt64 =
            switch response.body {
            case .bytes(let bytes): UInt64(bytes.count)
            case .source(_, let length): length
            }
        var headers = HTTPHeaders(response.headers.map { ($0.name, $0.value) })
        headers.add(name: "Content-Length", value: String(length))
        if isLast { headers.add(name: "Connection", value: "close") }
        let head = HTTPResponseHead(
            version: .http1_1, status: HTTPResponseStatus(statusCode: response.status), headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        switch response.body {
        case .bytes(let bytes):
            if !bytes.isEmpty {
                let buffer = context.channel.allocator.buffer(bytes: bytes)
                context.write(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
            }
            finish(isLast: isLast)
        case .source(let source, let length):
            state = .sending(Sending(source: source, left: length, isLast: isLast))
            cancelDeadline()
            pump()
        }
    }

    /// Writes slices as long as the client takes them and the source has them, each sealed and sent at once. (Two or four
    /// sealed together were measured no cheaper, and hold that much more memory a connection.)
    private func pump() {
        // A flush may report at once that there is room again: the loop below sees it.
        guard let context, !isPumping else { return }
        isPumping = true
        defer { isPumping = false }
        var slices = 0
        while case .sending(var sending) = state, !sending.isWaiting {
            guard sending.left > 0 else {
                sending.source.close(isComplete: true)
                return finish(isLast: sending.isLast)
            }
            guard context.channel.isWritable else { return setDeadline(limits.writeTimeout) }
            guard slices < limits.slicesPerTurn else {
                let this = NIOLoopBound(self, eventLoop: context.eventLoop)
                let number = number
                return context.eventLoop.execute { if this.value.number == number { this.value.pump() } }
            }
            slices += 1
            switch step(sending, context) {
            case .slice(let buffer):
                guard UInt64(buffer.readableBytes) <= sending.left, buffer.readableBytes > 0 else { return close() }
                sending.left -= UInt64(buffer.readableBytes)
                state = .sending(sending)
                context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
            case .wait:
                sending.isWaiting = true
                state = .sending(sending)
            case .failed: return close()
            }
        }
    }

    private func step(_ sending: Sending, _ context: ChannelHandlerContext) -> PeerBodyStep {
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        let (loop, number) = (context.eventLoop, number)
        return sending.source.next(context.channel.allocator) {
            loop.execute { this.value.sourceIsReady(number) }
        }
    }

    private func sourceIsReady(_ answer: UInt64) {
        guard answer == number, case .sending(var sending) = state else { return }
        sending.isWaiting = false
        state = .sending(sending)
        pump()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if case .sending = state, context.channel.isWritable {
            cancelDeadline()
            pump()
        }
        context.fireChannelWritabilityChanged()
    }

    private func finish(isLast: Bool) {
        guard let context else { return }
        number += 1
        guard isLast else {
            state = .idle
            // The next request may have begun to come.
            setDeadline((meter?.bytes ?? 0) > 0 ? limits.requestTimeout : limits.idleTimeout)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            return
        }
        state = .closing
        setDeadline(limits.writeTimeout)
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }

    // MARK: Time and the end

    private func drain() {
        isDraining = true
        if case .idle = state { close() }
    }

    func refuse(_ error: IdentityError) {
        if case .closing = state { return }
        connections.refuse(error.reason, peer: peer, handshake.address, error.message)
        close()
    }

    private func setDeadline(_ time: TimeAmount) {
        cancelDeadline()
        guard let context else { return }
        let this = NIOLoopBound(self, eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: time) { this.value.expire() }
    }

    private func cancelDeadline() {
        deadline?.cancel()
        deadline = nil
    }

    private func expire() {
        switch state {
        case .handshaking: refuse(IdentityError(.handshakeTimeout, "handshake over \(limits.handshakeTimeout)"))
        case .receiving: refuse(IdentityError(.requestTimeout, "request over \(limits.requestTimeout)"))
        case .idle where (meter?.bytes ?? 0) > 0:
            refuse(IdentityError(.requestTimeout, "request head over \(limits.requestTimeout)"))
        case .sending: refuse(IdentityError(.slowReader, "took nothing for \(limits.writeTimeout)"))
        // Idle is no fault; an answer that takes too long is ours.
        case .idle, .answering, .closing: close()
        }
    }

    private func close() {
        let context = context
        end()
        context?.close(promise: nil)
    }

    private func end() {
        cancelDeadline()
        number += 1
        switch state {
        case .handshaking: connections.endHandshake(handshake.address)
        case .answering(let task, _): task.cancel()
        case .sending(let sending): sending.source.close(isComplete: false)
        case .idle, .receiving, .closing: break
        }
        state = .closing
        context = nil
    }
}
