import ChunkModel
import ChunkResolution
import ContentIndex
import Integrity
import LinuxSystem
import PeerExchange

/// What this node knows of one blob that it shares: its name among peers, and what of it is here. A value.
struct Swarm {
    /// The blob's name on the wire.
    let id: WireID
    /// Makes the ids of its chunks; nil for a public image.
    let key: ManifestKey?
    let layout: BlobLayout
    /// The backing file, for reading only; nil until the gate has given it.
    var file: File?
    /// Bit n%8 of byte n/8: chunk n is resident.
    var residency: [UInt8]
    private(set) var residentCount = 0
    /// Resident chunks when peers were last told.
    var announced = -1
    /// When chunks that are on their way were asked for.
    var inFlight: [Int: Duration] = [:]

    /// A chunk is taken to be on its way this long after it was last asked for.
    static let inFlightFor = Duration.seconds(10)

    init(id: WireID, key: ManifestKey?, layout: BlobLayout) {
        self.id = id
        self.key = key
        self.layout = layout
        residency = [UInt8](repeating: 0, count: (layout.index.count + 7) / 8)
    }

    var count: Int { layout.index.count }
    var isComplete: Bool { residentCount == count }

    func isResident(_ chunk: Int) -> Bool {
        chunk >= 0 && chunk < count && residency[chunk >> 3] >> UInt8(chunk & 7) & 1 == 1
    }

    /// The id a peer must name to be given the chunk; nil when there is no such chunk.
    func chunkID(_ chunk: Int) -> WireID? {
        chunk >= 0 && chunk < count ? WireID.chunk(layout.index[chunk].digest, key: key) : nil
    }

    /// The gate said what is resident.
    mutating func set(_ bits: [UInt8]) {
        guard bits.count == residency.count else { return }
        residency = bits
        // Bits past the last chunk mean nothing.
        if count & 7 != 0, let last = residency.indices.last { residency[last] &= UInt8((1 << (count & 7)) - 1) }
        residentCount = residency.reduce(0) { $0 + $1.nonzeroBitCount }
    }

    mutating func setResident(_ chunk: Int) {
        guard chunk >= 0, chunk < count else { return }
        inFlight[chunk] = nil
        guard !isResident(chunk) else { return }
        residency[chunk >> 3] |= 1 << UInt8(chunk & 7)
        residentCount += 1
    }

    /// The chunk turned out to be damaged: it is not offered until it was filled again.
    mutating func clear(_ chunk: Int) {
        guard isResident(chunk) else { return }
        residency[chunk >> 3] &= ~(1 << UInt8(chunk & 7))
        residentCount -= 1
    }

    func isInFlight(_ chunk: Int, _ now: Duration) -> Bool {
        inFlight[chunk].map { now - $0 < Self.inFlightFor } ?? false
    }

    /// Consecutive resident chunks from `first` on: at most `limit`, and at most as many bytes as one answer may have.
    func run(from first: Int, limit: Int) -> Range<Int> {
        var end = first
        var bytes: UInt64 = 0
        while end < count, end - first < limit, isResident(end) {
            bytes += UInt64(layout.index[end].size)
            if bytes > PeerProtocol.maxAnswerBytes { break }
            end += 1
        }
        return first..<end
    }

    /// What to tell a peer of the chunks around one.
    func window(around chunk: Int) -> PeerResidency? {
        PeerResidency(first: 0, bits: residency)?.window(around: chunk)
    }

    /// What to tell everybody.
    var record: ContentRecord {
        residentCount == 0 ? ContentRecord(.registered) : ContentRecord(residency: residency, chunkCount: count)
    }

    /// Whether enough has changed since peers were last told: a sixteenth of the blob, or all is here now.
    var isNews: Bool {
        announced < 0 || (residentCount != announced && isComplete)
            || abs(residentCount - announced) >= max(1, count / 16)
    }
}
