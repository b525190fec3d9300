internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// The serving side: a node's peer server, the registry, and those who lie.
extension DistributionSimulation {
    /// Chunks of one answer on the way at once: what a TCP window holds.
    private static let window = 2

    mutating func serve(_ request: DistributionMessage.Request, to asker: Int, at node: DistributionNode) {
        let first = request.chunks.lowerBound
        let segment = layout.segment(of: first)
        let mayFetch =
            request.fetch && node.begun != nil
            && ContentIndex.mayAsk(nodes[asker].name, node.name, wireID, segment: segment)
        guard node.resident[first] || mayFetch else {
            return send(.end(id: request.id, .absent(node.window(from: first))), from: node.number, to: asker)
        }
        switch node.desk.ask(nodes[asker].name, wireID, segment: segment, rank: request.rank, now: simulation.now) {
        case .busy(let retryAfter, let holders):
            send(
                .end(id: request.id, .busy(retryAfter: retryAfter, holders: holders)), from: node.number, to: asker)
        case .serve(let ticket):
            let id = node.nextUpload
            node.nextUpload += 1
            node.uploads[id] = .init(
                to: asker,
                request: .init(
                    id: request.id, chunks: request.chunks, rank: request.rank, fetch: mayFetch, wait: request.wait),
                ticket: ticket, next: first)
            node.uploadOf[.init(to: asker, id: request.id)] = id
            counts.mostUploads = max(counts.mostUploads, node.desk.active)
            if mayFetch { relay(request.chunks, at: node) }
            pump(id, at: node)
        }
    }

    /// Gets what others asked this node to get.
    private mutating func relay(_ chunks: Range<Int>, at node: DistributionNode) {
        let keys = chunks.filter { !node.resident[$0] }.map { ChunkKey(Self.blob, $0) }
        if !keys.isEmpty { perform(.want(keys, .relayed, repair: false), at: node) }
    }

    /// Sends what can be sent; waits for what is on its way here; ends what is done.
    mutating func pump(_ id: UInt64, at node: DistributionNode) {
        while let upload = node.uploads[id], upload.onTheWay < Self.window {
            guard upload.next < upload.request.chunks.upperBound else {
                if upload.onTheWay == 0 { finish(id, at: node, nil) }
                return
            }
            if node.resident[upload.next] {
                node.uploads[id]?.next += 1
                node.uploads[id]?.onTheWay += 1
                node.uploads[id]?.progress += 1
                node.desk.noteSent(upload.ticket, now: simulation.now)
                send(
                    .chunk(id: upload.request.id, chunk: upload.next, content: Self.content(of: upload.next)),
                    from: node.number, to: upload.to, payload: layout.index[upload.next].size)
            } else if upload.request.fetch, upload.progress == 0,
                node.scheduler.isPending(ChunkKey(Self.blob, upload.next))
            {
                // The answer begins with the first chunk and holds what is there in a row by then.
                if node.waiting[upload.next]?.contains(id) != true { node.waiting[upload.next, default: []].append(id) }
                schedule(
                    .uploadEnd(node: node.number, upload: id, progress: upload.progress),
                    at: simulation.now + upload.request.wait)
                return
            } else {
                // As many in a row as are here.
                if upload.onTheWay == 0 { finish(id, at: node, .over) }
                return
            }
        }
    }

    /// A chunk has arrived: the next may go.
    mutating func sendMore(from: Int, to node: DistributionNode, _ id: UInt64) {
        let sender = nodes[from]
        guard sender.isUp, let upload = sender.uploadOf[.init(to: node.number, id: id)] else { return }
        sender.uploads[upload]?.onTheWay -= 1
        pump(upload, at: sender)
    }

    /// Ends an upload and says so, unless the asker knows.
    mutating func finish(_ id: UInt64, at node: DistributionNode, _ end: DistributionMessage.End?) {
        guard let upload = node.uploads.removeValue(forKey: id) else { return }
        node.uploadOf[.init(to: upload.to, id: upload.request.id)] = nil
        node.desk.finish(upload.ticket)
        if let end { send(.end(id: upload.request.id, end), from: node.number, to: upload.to) }
    }

    /// A chunk others wait for will not come.
    mutating func giveUpWaiting(_ chunk: Int, at node: DistributionNode) {
        for upload in node.waiting.removeValue(forKey: chunk) ?? [] where node.uploads[upload]?.onTheWay == 0 {
            finish(upload, at: node, .over)
        }
    }

    // MARK: - Liars

    mutating func lie(_ request: DistributionMessage.Request, to asker: Int, at node: DistributionNode) {
        switch node.lie {
        case .wrongBytes:
            for chunk in request.chunks.prefix(Self.window) {
                send(
                    .chunk(id: request.id, chunk: chunk, content: ~Self.content(of: chunk)), from: node.number,
                    to: asker,
                    payload: layout.index[chunk].size)
            }
        case .claiming:
            // Has nothing, and names others who were never given anything.
            let names = (0..<4).map { _ in nodes[Int(simulation.random.next() % UInt64(nodes.count))].name }
            send(.end(id: request.id, .busy(retryAfter: .zero, holders: names)), from: node.number, to: asker)
        case .stalling, nil: break
        }
    }

    // MARK: - The registry

    mutating func takeAtRegistry(_ message: DistributionMessage, from: Int) {
        switch message {
        case .ask(let request):
            guard registry.streams.count < options.registryRequests else {
                counts.tooMany += 1
                return send(
                    .end(id: request.id, .busy(retryAfter: .seconds(1), holders: [])), from: options.nodes, to: from)
            }
            registry.streams[.init(to: from, id: request.id)] = .init(next: request.chunks.lowerBound, request: request)
            for _ in 0..<Self.window { sendFromRegistry(to: from, request.id) }
        case .cancel(let id): registry.streams[.init(to: from, id: id)] = nil
        default: break
        }
    }

    private mutating func sendFromRegistry(to number: Int, _ id: UInt64) {
        let key = DistributionNode.UploadKey(to: number, id: id)
        guard let stream = registry.streams[key] else { return }
        guard stream.next < stream.request.chunks.upperBound else {
            registry.streams[key] = nil
            return
        }
        registry.streams[key]?.next += 1
        registry.sent[stream.next, default: 0] += 1
        send(
            .chunk(id: id, chunk: stream.next, content: Self.content(of: stream.next)), from: options.nodes, to: number,
            payload: layout.index[stream.next].size)
    }

    mutating func sendMoreFromRegistry(to number: Int, _ id: UInt64) { sendFromRegistry(to: number, id) }
}

/// The registry's side: its open answers, and how often it sent each chunk.
struct DistributionRegistry {
    struct Stream {
        var next: Int
        let request: DistributionMessage.Request
    }

    var streams: [DistributionNode.UploadKey: Stream] = [:]
    var sent: [Int: Int] = [:]
}
