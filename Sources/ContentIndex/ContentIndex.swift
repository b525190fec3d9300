package import ChunkModel

/// Who has what, as far as nodes say: one small record a node and blob, from gossip, and exact residency from replies.
///
/// Advice only: a wrong record costs a request to a peer that lacks the chunk. A value without clock or I/O; one user
/// at a time. Names of nodes and blobs are kept once; a record is 32 bytes (`BlobTable.Entry`).
package struct ContentIndex: Sendable {
    /// Bounds, each by name.
    package struct Limits: Sendable, Equatable {
        /// Nodes known by name, dead ones included: 16,384 × about 180 bytes = 3 MB.
        package var nodes = 16_384
        /// Records of all nodes together: 524,288 × 32 bytes × 5/4 for growth = 21 MB.
        package var records = 524_288
        /// Records of one node: no node fills the index for all.
        package var recordsPerNode = 1024
        /// Nodes of which exact residency is kept for one blob: 64 × up to 512 bytes of bits = 32 KiB a blob in use.
        package var exactPerBlob = 64
        /// How long a reply's "here" is believed without another; evictions are rare.
        package var presentFor = Duration.seconds(60)
        /// How long its "not here" is: it may be on its way there.
        package var absentFor = Duration.seconds(2)
        /// How long what a dead node said is kept, should it come back.
        package var remembered = Duration.seconds(600)
        /// Holders named in one answer, of the asker's zone and of others each.
        package var holders = 16

        package init() {}
    }

    /// What became of a record.
    package enum Applied: Equatable, Sendable {
        case changed
        /// Not newer than what is known.
        case stale
        case invalid(ContentRecord.Invalid)
        /// Too many nodes or records.
        case full
    }

    /// A node that may have a chunk.
    package struct Holder: Equatable, Sendable {
        package let node: NodeName
        /// 0...1; 1 when it said so in a reply or has everything.
        package let probability: Double
        package let isSameZone: Bool

        package init(node: NodeName, probability: Double, isSameZone: Bool) {
            self.node = node
            self.probability = probability
            self.isSameZone = isSameZone
        }
    }

    package let limits: Limits
    var nodes = NodeTable()
    var blobs: [WireID: BlobTable] = [:]
    package private(set) var recordCount = 0
    /// Grows when a node comes to life or goes.
    private var standings: UInt64 = 0

    package init(limits: Limits = Limits()) { self.limits = limits }

    // MARK: - Nodes

    /// The membership says that this node lives, in this zone ("" is none). What it said before counts (again). False
    /// when there are too many nodes.
    @discardableResult
    package mutating func setMember(_ name: NodeName, zone: String, now: Duration) -> Bool {
        guard let number = nodes.intern(name, limit: limits.nodes, now: now) else { return false }
        let before = (nodes[number].standing, nodes[number].zone)
        nodes[number].standing = .live
        nodes.setZone(number, zone)
        if before != (nodes[number].standing, nodes[number].zone) { standings += 1 }
        return true
    }

    /// The node is dead or left: it holds nothing and is asked nothing. Its records stay for a while.
    package mutating func forget(_ name: NodeName, now: Duration) {
        guard let number = nodes.number(of: name), nodes[number].isLive else { return }
        nodes[number].standing = .absent(since: now)
        standings += 1
    }

    /// Changes whenever another set of live nodes is interested in the blob, or they have changed zones.
    package func interestVersion(of blob: WireID) -> UInt64 { standings &+ (blobs[blob]?.interest ?? 0) }

    /// Whether the membership says that the node lives.
    package func isLive(_ name: NodeName) -> Bool { nodes.number(of: name).map { nodes[$0].isLive } ?? false }

    /// Known nodes, dead ones included.
    package var nodeCount: Int { nodes.count }
    package var blobCount: Int { blobs.count }

    // MARK: - Records

    /// Takes what a node said of a blob; `version` is the node's own count, the higher one holds. Never traps.
    package mutating func apply(
        _ name: NodeName, _ blob: WireID, version: UInt64, payload: [UInt8], now: Duration
    ) -> Applied {
        do throws(ContentRecord.Invalid) {
            return apply(name, blob, version: version, try ContentRecord(payload: payload), now: now)
        } catch { return .invalid(error) }
    }

    /// The same for a record that is not on the wire: one's own.
    package mutating func apply(
        _ name: NodeName, _ blob: WireID, version: UInt64, _ record: ContentRecord, now: Duration
    ) -> Applied {
        guard let number = nodes.intern(name, limit: limits.nodes, now: now) else { return .full }
        if let known = blobs[blob]?[number] {
            guard version > known.version else { return .stale }
        } else {
            guard recordCount < limits.records, nodes[number].records < limits.recordsPerNode else { return .full }
        }
        let isNew = blobs[blob, default: BlobTable()].put(.init(node: number, version: version, record))
        if isNew {
            recordCount += 1
            nodes[number].records += 1
        }
        return .changed
    }

    /// All that the node said is void: it began anew, and counts from the start.
    package mutating func void(_ name: NodeName) {
        guard let number = nodes.number(of: name), nodes[number].records > 0 else { return }
        for blob in Array(blobs.keys) {
            if blobs[blob]?.remove(number) == true { recordCount -= 1 }
            if blobs[blob]?.isEmpty == true { blobs[blob] = nil }
        }
        nodes[number].records = 0
        standings += 1
    }

    /// What the node last said of the blob.
    package func record(of name: NodeName, _ blob: WireID) -> ContentRecord? {
        nodes.number(of: name).flatMap { blobs[blob]?[$0]?.record }
    }

    /// All that a node said, by blob.
    package func records(of name: NodeName) -> [(blob: WireID, record: ContentRecord)] {
        guard let number = nodes.number(of: name) else { return [] }
        return blobs.compactMap { blob, table in table[number].map { (blob, $0.record) } }.sorted { $0.0 < $1.0 }
    }

    /// Drops what is too old: records of nodes long dead, gone records, exact residency. Call it about once a minute.
    package mutating func sweep(now: Duration) {
        let dead = nodes.absent(since: now - limits.remembered)
        let isDead = Set(dead)
        for blob in Array(blobs.keys) {
            guard var table = blobs.removeValue(forKey: blob) else { continue }
            for node in table.sweepGone() { nodes[node].records -= 1 }
            if !isDead.isEmpty { table.remove { isDead.contains($0) } }
            table.expireExact(before: now - limits.presentFor)
            if !table.isEmpty { blobs[blob] = table }
        }
        for number in dead { nodes.remove(number) }
        standings += 1
        recordCount = blobs.values.reduce(0) { $0 + $1.entries.count }
    }

    // MARK: - Exact residency

    /// A reply told what a node has of a blob; takes the place of what its last one told.
    package mutating func learn(_ name: NodeName, _ blob: WireID, _ window: ResidencyWindow, now: Duration) {
        guard let number = nodes.number(of: name) else { return }
        blobs[blob, default: BlobTable()].learn(
            .init(node: number, window: window, learned: now), limit: limits.exactPerBlob)
    }

    /// A node gave a chunk, or said that it has not got it.
    package mutating func learn(
        _ name: NodeName, _ blob: WireID, chunk: Int, isResident: Bool, now: Duration
    ) {
        guard let number = nodes.number(of: name), chunk >= 0 else { return }
        if blobs[blob]?.amend(number, chunk, isResident, now: now) == true { return }
        let byte: UInt8 = isResident ? 1 << UInt8(chunk & 7) : 0
        guard isResident, let window = ResidencyWindow(first: chunk & ~7, bits: [byte]) else {
            // A window of zeros would deny its neighbours too: only what a whole reply said does that.
            return
        }
        learn(name, blob, window, now: now)
    }

    /// Memory of the records and names in bytes, by their sizes and the room their arrays have.
    package var byteCount: Int {
        let records = blobs.values.reduce(0) { $0 + $1.entries.capacity * MemoryLayout<BlobTable.Entry>.stride }
        let exact = blobs.values.reduce(0) { $0 + $1.exact.reduce(0) { $0 + 64 + $1.window.bits.count } }
        // A name: the array's slot, the dictionary's at three quarters full, and the text with its heap header.
        let names = nodes.count * (MemoryLayout<NodeTable.Node?>.stride + 24 * 4 / 3 + 32 + NodeName.maxByteCount)
        let tables = blobs.count * (MemoryLayout<BlobTable>.stride + WireID.byteCount) * 4 / 3
        return records + exact + names + tables
    }
}
