import Logging
import NIOCore
import NIOHTTP1

/// One connection of the control server: collects a request within its bounds, runs the call, writes the answer.
///
/// All state belongs to the channel's event loop. Each call has a number, so that what a call says after its end
/// (deadline, lost connection) is ignored.
final class ControlHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private enum State {
        case waiting
        case receiving(HTTPRequestHead, body: [UInt8])
        /// `streaming`: the head of a streamed answer has been written.
        case running(HTTPRequestHead, Task<Void, Never>, streaming: Bool)
        /// An error was answered before the request's end: the rest is skipped, then the connection closes.
        case closing
    }

    private let service: any ControlService
    private let limits: ControlServerLimits
    private let refusal: ControlError?
    private let logger: Logger
    private var state = State.waiting
    private var deadline: Scheduled<Void>?
    private var lastProgress: NIODeadline?
    private var number: UInt64 = 0
    private var context: ChannelHandlerContext?

    init(service: any ControlService, limits: ControlServerLimits, refusal: ControlError?, logger: Logger) {
        self.service = service
        self.limits = limits
        self.refusal = refusal
        self.logger = logger
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        setDeadline(limits.requestDeadline)
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        logger.debug("control connection failed", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch (unwrapInboundIn(data), state) {
        case (.head(let head), .waiting): begin(head)
        case (.body(let part), .receiving(let head, var body)):
            // The state lets go of the array first: appended in place, not copied.
            state = .waiting
            guard body.count + part.readableBytes <= ControlCall.maxBodyBytes else {
                return refuse(
                    head, ControlError(.tooLarge, "request body over \(ControlCall.maxBodyBytes) bytes"), close: true)
            }
            body.append(contentsOf: part.readableBytesView)
            state = .receiving(head, body: body)
        case (.end, .receiving(let head, let body)): run(head, body: body)
        default: break
        }
    }

    // MARK: - A request

    private func begin(_ head: HTTPRequestHead) {
        if let refusal { return refuse(head, refusal, close: true) }
        state = .receiving(head, body: [])
    }

    private func run(_ head: HTTPRequestHead, body: [UInt8]) {
        let call: ControlCall
        do throws(ControlError) {
            let path = head.uri.split(separator: "?", maxSplits: 1).first.map(String.init) ?? ""
            call = try ControlCall(method: head.method.rawValue, path: path, body: body)
        } catch {
            return refuse(head, error, close: false)
        }
        guard let context else { return }
        number += 1
        let loop = context.eventLoop
        let handler = NIOLoopBound(self, eventLoop: loop)
        let (service, number) = (service, number)
        if call.isStreamed { cancelDeadline() } else { setDeadline(limits.callDeadline) }
        let task = Task {
            let outcome: Result<[UInt8], ControlError>
            do throws(ControlError) {
                outcome = .success(
                    try await call.perform(on: service) { report in
                        loop.execute { handler.value.progress(report, of: number) }
                    })
            } catch { outcome = .failure(error) }
            loop.execute { handler.value.finish(call, outcome, number: number) }
        }
        state = .running(head, task, streaming: false)
    }

    private func progress(_ report: ProgressReport, of call: UInt64) {
        guard call == number, case .running(let head, let task, let streaming) = state, let context,
            context.channel.isWritable,
            lastProgress.map({ NIODeadline.now() - $0 >= limits.progressInterval }) ?? true,
            let line = try? ControlJSON.encode(StreamLine<VersionReply>(progress: report))
        else { return }
        lastProgress = .now()
        if !streaming {
            beginStream(head)
            state = .running(head, task, streaming: true)
        }
        write(line: line)
        context.flush()
    }

    private func finish(_ call: ControlCall, _ outcome: Result<[UInt8], ControlError>, number: UInt64) {
        guard number == self.number, case .running(let head, _, let streaming) = state else { return }
        switch outcome {
        case .success(let body) where call.isStreamed:
            if !streaming { beginStream(head) }
            write(line: body)
            finishAnswer(head, close: false)
        case .success(let body): answer(head, .ok, body, close: false)
        case .failure(let error):
            logger.info(
                "control call failed",
                metadata: ["call": "\(call.name)", "code": "\(error.code.rawValue)", "error": "\(error.message)"])
            guard streaming else { return refuse(head, error, close: false) }
            if let line = try? ControlJSON.encode(StreamLine<VersionReply>(error: error)) { write(line: line) }
            finishAnswer(head, close: false)
        }
    }

    // MARK: - Answers

    private func refuse(_ head: HTTPRequestHead, _ error: ControlError, close: Bool) {
        let status = HTTPResponseStatus(statusCode: error.code.httpStatus)
        answer(head, status, (try? ControlJSON.encode(ErrorReply(error: error))) ?? [], close: close)
    }

    private func answer(_ head: HTTPRequestHead, _ status: HTTPResponseStatus, _ body: [UInt8], close: Bool) {
        guard let context else { return }
        var headers = HTTPHeaders([
            ("content-type", "application/json"), ("content-length", String(body.count + 1)),
        ])
        if close || !head.isKeepAlive { headers.add(name: "connection", value: "close") }
        let response = HTTPResponseHead(version: .http1_1, status: status, headers: headers)
        context.write(wrapOutboundOut(.head(response)), promise: nil)
        write(line: body)
        finishAnswer(head, close: close)
    }

    private func beginStream(_ head: HTTPRequestHead) {
        var headers = HTTPHeaders([("content-type", "application/x-ndjson")])
        if !head.isKeepAlive { headers.add(name: "connection", value: "close") }
        let response = HTTPResponseHead(version: .http1_1, status: .ok, headers: headers)
        context?.write(wrapOutboundOut(.head(response)), promise: nil)
    }

    private func write(line: [UInt8]) {
        guard let context else { return }
        var buffer = context.channel.allocator.buffer(capacity: line.count + 1)
        buffer.writeBytes(line)
        buffer.writeInteger(UInt8(ascii: "\n"))
        context.write(wrapOutboundOut(.body(.byteBuffer(buffer))), promise: nil)
    }

    private func finishAnswer(_ head: HTTPRequestHead, close: Bool) {
        guard let context else { return }
        let closes = close || !head.isKeepAlive
        let written = context.eventLoop.makePromise(of: Void.self)
        let channel = context.channel
        if closes { written.futureResult.whenComplete { _ in channel.close(promise: nil) } }
        state = closes ? .closing : .waiting
        lastProgress = nil
        number += 1
        setDeadline(limits.requestDeadline)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
    }

    // MARK: - Time and the end

    private func setDeadline(_ time: TimeAmount) {
        cancelDeadline()
        guard let context else { return }
        let handler = NIOLoopBound(self, eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: time) { handler.value.expire() }
    }

    private func cancelDeadline() {
        deadline?.cancel()
        deadline = nil
    }

    private func expire() {
        if case .running(let head, let task, false) = state {
            task.cancel()
            refuse(
                head, ControlError(.deadline, "not done within \(limits.callDeadline.nanoseconds / 1_000_000_000) s"),
                close: true)
        } else {
            context?.close(promise: nil)
        }
    }

    private func end() {
        if case .running(_, let task, _) = state { task.cancel() }
        state = .closing
        cancelDeadline()
        number += 1
        context = nil
    }
}
