internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// Many cold nodes that mount one image at the same moment and read all of it: the agent's own scheduler, peer
/// selection, content index and upload desk under virtual time, with a registry of limited rate and nodes that lie.
///
/// Checked: no byte is accepted that is not the image's, every miss is answered exactly once, no reader sees an error,
/// everybody honest gets the whole image.
package struct DistributionSimulation {
    static let blob = BlobID(1)

    let options: DistributionOptions
    let layout: BlobLayout
    let wireID: WireID
    var simulation: Simulation<DistributionMessage>
    var nodes: [DistributionNode] = []
    var numbers: [NodeName: Int] = [:]
    var registry = DistributionRegistry()
    var timers: [UInt64: DistributionTimer] = [:]
    var nextTimer: UInt64 = 1
    var counts = DistributionCounts()
    /// Readers that are not done.
    var unfinished = 0

    /// Runs it; the report holds the figures of this run and of one node alone.
    package static func run(_ options: DistributionOptions) -> SimulationReport {
        var report = SimulationReport(
            simulation: "distribution", scenario: options.liars > 0 ? "liars" : "cold-start", nodes: options.nodes,
            seed: options.seed)
        var alone = options
        alone.nodes = 1
        alone.liars = 0
        alone.crashes = 0
        var single = DistributionSimulation(alone)
        single.run()
        var simulation = DistributionSimulation(options)
        simulation.run()
        simulation.report(to: &report, alone: single)
        return report
    }

    init(_ options: DistributionOptions) {
        self.options = options
        layout = Self.layout(options)
        wireID = Self.identifier
        var network = NetworkModel()
        network.minimumLatency = .microseconds(150)
        network.meanJitter = .microseconds(200)
        // One more node: the registry, 10 ms away.
        simulation = Simulation(nodes: options.nodes + 1, network: network, seed: options.seed)
        simulation.setExtraDelay(.milliseconds(10), of: options.nodes)
        simulation.setBandwidth(up: options.registryRate, down: nil, of: options.nodes)
        addNodes()
    }

    private mutating func addNodes() {
        let liars = Int((Double(options.nodes) * options.liars).rounded())
        var order = Array(0..<options.nodes)
        order.shuffle(using: &simulation.random)
        var lies = [DistributionNode.Lie?](repeating: nil, count: options.nodes)
        for (place, number) in order.prefix(liars).enumerated() { lies[number] = .init(rawValue: place % 3) }
        for number in 0..<options.nodes {
            guard let name = NodeName("node-\(number)") else { continue }
            simulation.setBandwidth(up: options.nodeRate, down: options.nodeRate, of: number)
            nodes.append(
                DistributionNode(
                    number: number, name: name, lie: lies[number], layout: layout, seed: simulation.random.next()))
            numbers[name] = number
        }
        // The membership has long converged.
        for node in nodes {
            for other in nodes {
                node.index.setMember(other.name, zone: "zone-\(other.number % max(1, options.zones))", now: .zero)
            }
            let delay = Duration.seconds(options.spread * NetworkModel.unit(&simulation.random))
            schedule(.mount(node: node.number, attempt: 0), at: delay)
        }
        unfinished = options.nodes - liars
        let crashing = order.dropFirst(liars).prefix(options.crashes)
        for number in crashing {
            schedule(.crash(node: number), at: .seconds(1 + 30 * NetworkModel.unit(&simulation.random)))
        }
    }

    private static func layout(_ options: DistributionOptions) -> BlobLayout {
        var chunks: [(end: UInt64, digest: Digest)] = []
        for chunk in 0..<options.chunkCount {
            var bytes = [UInt8](repeating: 0, count: Digest.byteCount)
            for place in 0..<8 { bytes[place] = UInt8(truncatingIfNeeded: content(of: chunk) >> UInt64(8 * place)) }
            guard let digest = Digest(rawBytes: bytes) else { continue }
            chunks.append((UInt64(min((chunk + 1) * options.chunkBytes, options.imageBytes)), digest))
        }
        guard let index = try? ChunkIndex(chunks: chunks) else {
            preconditionFailure("image of \(options.imageBytes) bytes in chunks of \(options.chunkBytes)")
        }
        return BlobLayout(raw: index)
    }

    /// What stands for a chunk's bytes.
    static func content(of chunk: Int) -> UInt64 { SplitMix64.mix(UInt64(chunk)) }

    private static var identifier: WireID {
        guard let id = WireID(rawBytes: (0..<32).map { UInt8($0) }) else { preconditionFailure("32 bytes are an id") }
        return id
    }

    // MARK: - The loop

    mutating func run() {
        while unfinished > 0, let occurrence = simulation.next(until: options.longest) {
            switch occurrence {
            case .message(let from, let to, let message):
                if to == options.nodes {
                    takeAtRegistry(message, from: from)
                } else {
                    take(message, from: from, at: to)
                }
            case .wake(let number):
                perform(.tick, at: nodes[number])
            case .timer(let token):
                if let timer = timers.removeValue(forKey: token) { fire(timer) }
            }
        }
    }

    mutating func schedule(_ timer: DistributionTimer, at time: Duration) {
        timers[nextTimer] = timer
        simulation.at(time, token: nextTimer)
        nextTimer += 1
    }

    mutating func send(_ message: DistributionMessage, from: Int, to: Int, payload: Int = 0) {
        simulation.send(from: from, to: to, bytes: message.byteCount + payload, message)
    }

    private mutating func fire(_ timer: DistributionTimer) {
        switch timer {
        case .mount(let number, let attempt): mount(nodes[number], attempt)
        case .mounted(let number): if nodes[number].isUp { beginReading(nodes[number]) }
        case .gossip(let number, let wave, let version, let record): gossip(number, wave, version, record)
        case .stall(let number, let range, let progress): noteStall(nodes[number], range, progress)
        case .uploadEnd(let number, let upload, let progress):
            let node = nodes[number]
            if let current = node.uploads[upload], current.progress == progress, current.onTheWay == 0 {
                // Alive, and still at it.
                finish(upload, at: node, .busy(retryAfter: .milliseconds(20), holders: []))
            }
        case .crash(let number): crash(nodes[number])
        }
    }

    private mutating func take(_ message: DistributionMessage, from: Int, at number: Int) {
        let node = nodes[number]
        guard node.isUp else { return }
        switch message {
        case .ask(let request): node.lie == nil ? serve(request, to: from, at: node) : lie(request, to: from, at: node)
        case .chunk(let id, let chunk, let content): receive(id, chunk, content, from: from, at: node)
        case .end(let id, let end): noteEnd(id, end, at: node)
        case .cancel(let id):
            if let upload = node.uploadOf[.init(to: from, id: id)] { finish(upload, at: node, nil) }
        case .mount(let known): answerMount(known, from: from, at: node)
        case .mounted(let names, let count): noteMounted(names, count, from: from, at: node)
        case .complaint: counts.complaints += 1
        }
    }
}
