import ChunkModel
import ContentIndex
import Integrity
import LinuxSystem
import Membership
import OCISpec

/// An ordinary image as peers may know it: its blobs, whole, under the numbers they have in its manifest. A value.
///
/// To the content index it is what a blob of chunks is to it, so that one record says which blobs a node has, and the
/// rendezvous names another node for each of them.
struct WholeImage: Sendable {
    /// Its name on the wire.
    let id: WireID
    /// Makes the names of its blobs; nil for a public image.
    let key: ManifestKey?
    /// Config and layers in the manifest's order, each digest once.
    let blobs: [Descriptor]
    private let numbers: [WireID: Int]
    /// Bit n % 8 of byte n / 8: blob n is here.
    private(set) var residency: [UInt8]
    /// What was said last.
    var announced: ContentRecord?

    init(_ manifest: Digest, _ blobs: [Descriptor], key: ManifestKey?) {
        id = WireID.wholeImage(manifest, key: key)
        self.key = key
        self.blobs = blobs
        var numbers: [WireID: Int] = [:]
        for (number, blob) in blobs.enumerated() { numbers[WireID.chunk(blob.digest, key: key)] = number }
        self.numbers = numbers
        residency = [UInt8](repeating: 0, count: (blobs.count + 7) / 8)
    }

    func name(_ number: Int) -> WireID { WireID.chunk(blobs[number].digest, key: key) }
    func number(of name: WireID) -> Int? { numbers[name] }
    func number(of digest: Digest) -> Int? { blobs.firstIndex { $0.digest == digest } }

    /// A blob has come, or gone.
    mutating func note(_ digest: Digest, isHere: Bool) {
        guard let number = number(of: digest) else { return }
        let bit = UInt8(1) << UInt8(number % 8)
        if isHere { residency[number / 8] |= bit } else { residency[number / 8] &= ~bit }
    }

    /// What others are told.
    var record: ContentRecord {
        residency.allSatisfy { $0 == 0 }
            ? ContentRecord(.registered) : ContentRecord(residency: residency, chunkCount: blobs.count)
    }
}

/// What there is of a blob that a peer asks for.
enum WholeAnswer: Sendable {
    /// Verified; `ended` is called once it is sent, or not.
    case here(File, ended: @Sendable (_ isSent: Bool) -> Void)
    /// This node is getting it.
    case coming
    case absent
}

/// Has the blobs of ordinary images. Thread-safe; must not block.
protocol WholeSupplier: Sendable {
    /// A blob of an image that peers know. `mayFetch`: the rendezvous names this node, so it is to get it if it can. Waits
    /// up to `wait` for one that is coming.
    func whole(_ blob: Descriptor, of image: WireID, mayFetch: Bool, wait: Duration) async -> WholeAnswer
}

extension ClusterState {
    /// Puts what has changed about ordinary images into gossip.
    mutating func publishWholes(now: Duration) -> [Membership.Directive] {
        wholes.filter { $0.value.record != $0.value.announced }.keys.sorted().flatMap { id in
            publish(whole: id, now: now)
        }
    }

    mutating func publish(whole id: WireID, now: Duration) -> [Membership.Directive] {
        guard let record = wholes[id]?.record else { return [] }
        wholes[id]?.announced = record
        noteOwn(id, record, now: now)
        return take(.publish(blob: id, isGone: false, payload: record.payload), now: now)
    }
}
