internal import ChunkModel
internal import ChunkResolution
internal import ContentIndex

/// One simulated node: the agent's real state machines and what stands for its gate, disk and reader.
final class DistributionNode {
    /// A range on its way here.
    struct Incoming {
        let plan: RangePlan
        let source: Int
        let asked: Duration
        var next: Int
        var firstByte: Duration?
        var bytes = 0
        var progress = 0
    }

    /// A range on its way to another node.
    struct Upload {
        let to: Int
        let request: DistributionMessage.Request
        let ticket: UInt64
        var next: Int
        /// Chunks sent and not arrived.
        var onTheWay = 0
        var progress = 0
    }

    /// How a liar lies.
    enum Lie: Int, CaseIterable {
        case wrongBytes
        case stalling
        case claiming
    }

    let number: Int
    let name: NodeName
    let lie: Lie?
    var scheduler: FetchScheduler
    var selector: PeerSelector
    var index = ContentIndex()
    var desk = UploadDesk()
    var detector: ReadAheadDetector
    var resident: [Bool]
    var residentCount = 0
    /// What was written, by the gate's stand-in.
    var disk: [UInt64?]
    /// Chunks taken for resident without their right bytes.
    var wrongChunks = 0
    var incoming: [UInt64: Incoming] = [:]
    var uploads: [UInt64: Upload] = [:]
    var nextUpload: UInt64 = 1
    /// Uploads that wait for a chunk, in the order they came.
    var waiting: [Int: [UInt64]] = [:]
    /// The upload a request of another node started.
    var uploadOf: [UploadKey: UInt64] = [:]
    var toLocate: [ChunkKey] = []
    /// Where the reader stands; nil before it begins.
    var reading: Int?
    var begun: Duration?
    var finished: Duration?
    /// Misses that were not answered yet.
    var misses: Set<Int> = []
    /// What this node says of itself.
    var version: UInt64 = 0
    var announced = 0
    /// As a tracker: who registered, in order; and as an asker: what each of its trackers has told.
    var registered: [NodeName] = []
    var isRegistered: Set<NodeName> = []
    var told: [Int: Int] = [:]
    /// Its trackers that have not answered since it mounted.
    var silentTrackers: Set<Int> = []
    var isUp = true

    struct UploadKey: Hashable {
        let to: Int
        let id: UInt64
    }

    init(number: Int, name: NodeName, lie: Lie?, layout: BlobLayout, seed: UInt64) {
        self.number = number
        self.name = name
        self.lie = lie
        scheduler = FetchScheduler(seed: seed)
        scheduler.register(DistributionSimulation.blob, layout)
        selector = PeerSelector(own: name)
        detector = ReadAheadDetector(chunkCount: layout.index.count, rawSize: layout.index.rawSize)
        resident = [Bool](repeating: false, count: layout.index.count)
        disk = [UInt64?](repeating: nil, count: layout.index.count)
    }

    /// Residency from a chunk on, as an answer tells it.
    func window(from chunk: Int) -> ResidencyWindow? {
        let first = chunk & ~7
        let count = min(256, resident.count - first)
        var bits = [UInt8](repeating: 0, count: (count + 7) / 8)
        for at in 0..<count where resident[first + at] { bits[at >> 3] |= 1 << UInt8(at & 7) }
        return ResidencyWindow(first: first, bits: bits)
    }

    var record: ContentRecord {
        if residentCount == 0 { return ContentRecord(.registered) }
        var bits = [UInt8](repeating: 0, count: (resident.count + 7) / 8)
        for at in resident.indices where resident[at] { bits[at >> 3] |= 1 << UInt8(at & 7) }
        return ContentRecord(residency: bits, chunkCount: resident.count)
    }
}
