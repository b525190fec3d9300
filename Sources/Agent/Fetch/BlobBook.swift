import Catalogue
import ChunkModel
import ChunkResolution
import OCISpec
import RegistryClient

/// Where a blob's chunks are fetched from and how they lie there.
struct BlobDescription: Sendable {
    let layout: BlobLayout
    /// The repository, by any reference to it.
    let reference: Reference
    /// Digest and size of the stored blob.
    let stored: Descriptor
    let compression: ChunkdImage.Compression
    /// Of an image that has it.
    let manifest: Digest
}

/// A blob as the gate has it on this connection.
struct BlobAttachment: Sendable {
    let key: BlobKey
    let handle: UInt32
    let chunkCount: Int
    let rawSize: UInt64
    /// Bit n%8 of byte n/8: chunk n is resident.
    let residency: [UInt8]
}

/// All blobs the engine knows, under its own numbers. The engine's thread is the only user.
struct BlobBook {
    struct Entry {
        let id: BlobID
        let key: BlobKey
        var handle: UInt32?
        var chunkCount = 0
        var rawSize: UInt64 = 0
        var residency: [UInt8] = []
        var description: BlobDescription?
        var detector: ReadAheadDetector?
        /// Nobody could say how to fetch it: its readers are told at once.
        var isRefused = false
        /// Misses that came before the description.
        var waiting: [Int] = []
        /// Chunks that an access trace names, as `residency`: what follows them is the trace's business, which knows where
        /// files end.
        var traced: [UInt8] = []
        /// Somebody read it since this was last asked.
        var isUsed = false

        func isResident(_ chunk: Int) -> Bool { Self.isSet(chunk, residency) }
        func isTraced(_ chunk: Int) -> Bool { Self.isSet(chunk, traced) }

        private static func isSet(_ chunk: Int, _ bits: [UInt8]) -> Bool {
            chunk >> 3 < bits.count && bits[chunk >> 3] >> UInt8(chunk & 7) & 1 == 1
        }

        /// Chunks that the blob does not have are left out.
        mutating func setTraced(_ chunks: Range<Int>) {
            let size = (chunkCount + 7) / 8
            if traced.count != size { traced = [UInt8](repeating: 0, count: size) }
            for chunk in chunks.clamped(to: 0..<chunkCount) { traced[chunk >> 3] |= 1 << UInt8(chunk & 7) }
        }

        mutating func setResident(_ chunk: Int) {
            if chunk >> 3 < residency.count { residency[chunk >> 3] |= 1 << UInt8(chunk & 7) }
        }
    }

    private var entries: [Entry] = []
    private var byKey: [BlobKey: Int] = [:]
    private var byHandle: [UInt32: Int] = [:]

    /// Ids in use, ascending.
    var ids: [BlobID] { entries.map(\.id) }

    subscript(_ id: BlobID) -> Entry {
        get { entries[Int(id.number)] }
        set { entries[Int(id.number)] = newValue }
    }

    func contains(_ id: BlobID) -> Bool { Int(id.number) < entries.count }

    /// The blob with this key, made when it is new.
    mutating func id(of key: BlobKey) -> BlobID {
        if let number = byKey[key] { return entries[number].id }
        let id = BlobID(UInt32(entries.count))
        entries.append(Entry(id: id, key: key))
        byKey[key] = entries.count - 1
        return id
    }

    func existing(_ key: BlobKey) -> BlobID? { byKey[key].map { entries[$0].id } }
    func id(ofHandle handle: UInt32) -> BlobID? { byHandle[handle].map { entries[$0].id } }

    mutating func attach(_ attachment: BlobAttachment) -> BlobID {
        let id = id(of: attachment.key)
        let number = Int(id.number)
        // What was filled since the bits were asked for counts as well.
        var residency = attachment.residency
        if entries[number].handle == attachment.handle, entries[number].residency.count == residency.count {
            for byte in residency.indices { residency[byte] |= entries[number].residency[byte] }
        }
        entries[number].handle = attachment.handle
        entries[number].chunkCount = attachment.chunkCount
        entries[number].rawSize = attachment.rawSize
        entries[number].residency = residency
        byHandle[attachment.handle] = number
        return id
    }

    /// The connection ended: its handles mean nothing, and so does what was known to be resident.
    mutating func detachAll() {
        byHandle = [:]
        for number in entries.indices {
            entries[number].handle = nil
            entries[number].residency = []
            entries[number].traced = []
            entries[number].detector = nil
            entries[number].waiting = []
        }
    }

    /// The gate removed it.
    mutating func detach(_ id: BlobID) {
        let number = Int(id.number)
        if let handle = entries[number].handle { byHandle[handle] = nil }
        entries[number].handle = nil
        entries[number].residency = []
        entries[number].traced = []
        entries[number].detector = nil
        entries[number].description = nil
        entries[number].isRefused = false
    }
}
