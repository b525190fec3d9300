package import Catalogue
internal import ChunkModel
package import Logging

/// containerd's snapshots over chunkd's images: docs/formats/snapshots.md.
///
/// A snapshot has a directory of its own, as with containerd's overlayfs, or stands for (a layer of) a chunkd image,
/// which is one EROFS mount for all of its layers. Thread-safe: each change is one transaction of the ledger, and
/// whatever lies outside of it can be done again.
package struct SnapshotService: Sendable {
    /// What the node is told of for its metrics.
    package enum Notice: Sendable {
        case failed(SnapshotError.Code)
        /// A layer of a chunkd image that containerd need not download.
        case skippedLayer
        /// Nobody could say whether an image is one of chunkd's: containerd goes on as with an ordinary one.
        case undecided
    }

    let ledger: SnapshotLedger
    let host: any SnapshotHost
    let logger: Logger
    private let now: @Sendable () -> Int64
    let observe: @Sendable (Notice) -> Void

    /// Bytes of a key or name; containerd's are about 100.
    static let maxName = 1024
    /// Bytes of one label, key and value (containerd's own limit), and how many there may be.
    static let maxLabel = 4096
    static let maxLabels = 256

    /// - Parameters:
    ///   - now: nanoseconds since 1970.
    ///   - observe: called on any thread.
    package init(
        ledger: SnapshotLedger, host: any SnapshotHost, logger: Logger, now: @escaping @Sendable () -> Int64,
        observe: @escaping @Sendable (Notice) -> Void
    ) {
        self.ledger = ledger
        self.host = host
        self.logger = logger
        self.now = now
        self.observe = observe
    }

    // MARK: - Preparing

    /// A writable snapshot or, with labels that name a layer of a chunkd image, nothing: `exists` then says that the
    /// layer is there already, and containerd neither downloads nor unpacks it.
    package func prepare(
        _ key: String, parent: String, labels: [String: String]
    ) async throws -> [SnapshotMount] {
        try Self.check(key, labels)
        if let target = LayerTarget(labels), try await takeLayer(target, parent: parent, labels) {
            throw SnapshotError(.exists, "layer \(target.name) is there already, in image \(target.manifest)")
        }
        return try await add(.active, key, parent: parent, labels: labels)
    }

    /// A snapshot to look at.
    package func view(_ key: String, parent: String, labels: [String: String]) async throws -> [SnapshotMount] {
        try Self.check(key, labels)
        return try await add(.view, key, parent: parent, labels: labels)
    }

    private func add(
        _ kind: SnapshotRecord.Kind, _ key: String, parent: String, labels: [String: String]
    ) async throws -> [SnapshotMount] {
        let wanted = SnapshotRecord(
            name: key, parent: parent.isEmpty ? nil : parent, kind: kind, created: now(), labels: labels)
        let (record, ancestors) = try await ledger.add(wanted)
        do {
            return try await mounts(of: record, ancestors, isNew: true)
        } catch {
            // Only the name goes: a directory that is there without one is found by `cleanup`, and may be another's.
            _ = try await ledger.remove(key)
            throw error
        }
    }

    /// Notes a layer of a chunkd image as committed under the name containerd will look for; false when the image is an
    /// ordinary one, or its parent is not the layer before.
    private func takeLayer(
        _ target: LayerTarget, parent: String, _ labels: [String: String]
    ) async throws -> Bool {
        let layer: SnapshotLayer
        do throws(SnapshotError) {
            let found = try await host.layer(target.layer, of: target.manifest, reference: target.reference)
            guard let found else { return false }
            layer = found
        } catch {
            observe(.undecided)
            logger.warning(
                "cannot tell whether an image is one of chunkd's: containerd unpacks it",
                metadata: ["reference": "\(target.reference)", "error": "\(error)"])
            return false
        }
        let image = SnapshotRecord.Image(manifest: target.manifest, reference: target.reference)
        if layer.position > 0 {
            guard !parent.isEmpty, try await ledger.record(parent).image?.manifest == image.manifest else {
                return false
            }
        } else {
            guard parent.isEmpty else { return false }
            // Only what can be mounted is promised: containerd does not ask again.
            _ = try await host.mount(image)
        }
        var record = SnapshotRecord(
            name: target.name, parent: parent.isEmpty ? nil : parent, kind: .committed, created: now(), labels: labels)
        record.image = image
        do { _ = try await ledger.add(record) } catch let error as SnapshotError where error.code == .exists {
            // Pulled before, or in another of containerd's namespaces.
            guard try await ledger.record(target.name).image?.manifest == image.manifest else { return false }
        }
        observe(.skippedLayer)
        return true
    }

    // MARK: - Mounts

    package func mounts(_ key: String) async throws -> [SnapshotMount] {
        let chain = try await ledger.chain(key)
        guard let record = chain.first, record.kind != .committed else {
            throw SnapshotError(.precondition, "snapshot \(key) is committed, expected active or view")
        }
        return try await mounts(of: record, Array(chain.dropFirst()), isNew: false)
    }

    /// Has everything there that the mounts name, also after a reboot.
    private func mounts(
        of record: SnapshotRecord, _ ancestors: [SnapshotRecord], isNew: Bool
    ) async throws -> [SnapshotMount] {
        var lowers: [String] = []
        var last: SnapshotRecord.Image?
        for ancestor in ancestors {
            if let image = ancestor.image {
                // All layers of an image are one mount.
                if image.manifest != last?.manifest { lowers.append(try await host.mount(image)) }
            } else {
                lowers.append(host.directory(of: ancestor.id) + "/fs")
            }
            last = ancestor.image
        }
        // After the image is mounted, whose root it is to be like.
        if record.kind == .active || lowers.isEmpty {
            try await makeDirectory(record.id, like: ancestors.first.map(Self.likeness) ?? .none, isNew: isNew)
        }
        return [SnapshotMount.of(record.kind, directory: host.directory(of: record.id), lowers: lowers)]
    }

    private func makeDirectory(
        _ id: UInt64, like: GateProtocol.SnapshotLike, isNew: Bool
    ) async throws(SnapshotError) {
        do { try await host.makeDirectory(id, like: like) } catch {
            guard error.code == .exists else { throw error }
            // What is in the directory of a new snapshot is not its own.
            if isNew { throw SnapshotError(.unavailable, error.message) }
        }
    }

    private static func likeness(_ parent: SnapshotRecord) -> GateProtocol.SnapshotLike {
        parent.image.map { .image($0.manifest) } ?? .snapshot(parent.id)
    }

    // MARK: - Committing and removing

    package func commit(_ key: String, as name: String, parent: String, labels: [String: String]) async throws {
        try Self.check(name, labels)
        let usage = try await host.usage(of: try await ledger.activeID(key))
        try await ledger.commit(
            key, as: name, parent: parent.isEmpty ? nil : parent, labels: labels, usage: usage, at: now())
    }

    /// Forgets it first: a directory that is left is found by `cleanup`, a name without one would break containers.
    package func remove(_ key: String) async throws {
        let (record, imageIsLeft) = try await ledger.remove(key)
        do throws(SnapshotError) {
            if let image = record.image {
                if !imageIsLeft { try await host.release(image) }
            } else {
                try await host.removeDirectory(record.id)
            }
        } catch {
            observe(.failed(error.code))
            logger.warning(
                "what a removed snapshot held is still there", metadata: ["key": "\(key)", "error": "\(error)"])
        }
    }

    /// Removes directories that no snapshot has, but for those of a ledger that was lost.
    /// - Returns: how many.
    @discardableResult
    package func cleanup() async throws -> Int {
        // The directories first: one that is made meanwhile is in the ledger before it is on disk.
        let found = try await host.directories()
        let known = try await ledger.directories()
        let lost = found.filter { $0 < ledger.firstID }
        if let last = lost.last {
            logger.warning(
                "directories of snapshots from before the list of them was lost: remove them when no container uses them",
                metadata: ["count": "\(lost.count)", "last": "\(host.directory(of: last))"])
        }
        let orphans = found.filter { $0 >= ledger.firstID && !known.contains($0) }
        for id in orphans { try await host.removeDirectory(id) }
        return orphans.count
    }

    // MARK: - Asking

    package func stat(_ key: String) async throws -> SnapshotRecord { try await ledger.record(key) }

    /// Bytes and inodes of a snapshot alone, without its ancestors. All of an image counts as its first layer's.
    package func usage(_ key: String) async throws -> SnapshotRecord.Usage {
        let record = try await ledger.record(key)
        if let image = record.image { return record.parent == nil ? try await host.usage(of: image) : .init() }
        switch record.kind {
        case .committed: return record.usage
        case .active: return try await host.usage(of: record.id)
        case .view: return .init()
        }
    }

    /// Changes labels; nothing else of a snapshot can be changed.
    /// - Parameter mask: `labels`, `labels.KEY`, or empty for all labels.
    package func update(_ name: String, labels: [String: String], mask: [String]) async throws -> SnapshotRecord {
        try Self.check(name, labels)
        let record = try await ledger.record(name)
        var changed = mask.isEmpty || mask.contains("labels") ? labels : record.labels
        for path in mask where path != "labels" {
            guard path.hasPrefix("labels.") else {
                throw SnapshotError(.invalid, "cannot change \(path) of a snapshot, only labels")
            }
            let key = String(path.dropFirst("labels.".count))
            changed[key] = labels[key]
        }
        return try await ledger.update(name, labels: changed, at: now())
    }

    /// The snapshots that one of the filters lets through, in pages.
    package func list(_ filters: [String], page: ([SnapshotRecord]) async throws -> Void) async throws {
        guard filters.count <= SnapshotFilter.maxFilters else {
            throw SnapshotError(.invalid, "\(filters.count) filters, expected at most \(SnapshotFilter.maxFilters)")
        }
        let wanted = try filters.map { text throws(SnapshotError) in
            do throws(FilterError) { return try SnapshotFilter(text) } catch {
                throw SnapshotError(.invalid, error.description)
            }
        }
        var last: UInt64 = 0
        while true {
            let records = try await ledger.records(after: last, limit: Self.pageSize)
            guard let end = records.last else { return }
            last = end.id
            let found = records.filter { record in
                wanted.isEmpty || wanted.contains { $0.matches { Self.field($0, of: record) } }
            }
            if !found.isEmpty { try await page(found) }
        }
    }

    private static let pageSize = 256

    /// A field as containerd's filters name it. No parent is an empty one: containerd looks for first layers by that.
    private static func field(_ path: [String], of record: SnapshotRecord) -> String? {
        switch path.first {
        case "name" where path.count == 1: record.name
        case "parent" where path.count == 1: record.parent ?? ""
        case "kind" where path.count == 1:
            switch record.kind {
            case .view: "View"
            case .active: "Active"
            case .committed: "Committed"
            }
        case "labels" where path.count > 1: record.labels[path.dropFirst().joined(separator: ".")]
        default: nil
        }
    }

    private static func check(_ name: String, _ labels: [String: String]) throws(SnapshotError) {
        guard (1...maxName).contains(name.utf8.count) else {
            throw SnapshotError(.invalid, "a name of \(name.utf8.count) bytes, expected 1 to \(maxName)")
        }
        guard labels.count <= maxLabels else {
            throw SnapshotError(.invalid, "\(labels.count) labels, expected at most \(maxLabels)")
        }
        for (key, value) in labels where key.utf8.count + value.utf8.count > maxLabel {
            throw SnapshotError(
                .invalid, "label \(key.prefix(64)) and its value have more than \(maxLabel) bytes")
        }
    }
}

/// What the labels of a snapshot say that it is to be: a layer of an image (containerd, pkg/snapshotters/annotations).
struct LayerTarget: Equatable {
    /// The name under which the layer is committed.
    let name: String
    let reference: String
    let manifest: Digest
    let layer: Digest

    /// Nil unless containerd's image service set all of them.
    init?(_ labels: [String: String]) {
        func digest(_ label: String) -> Digest? { labels["containerd.io/snapshot/cri." + label].flatMap { Digest($0) } }
        guard let name = labels["containerd.io/snapshot.ref"], (1...SnapshotService.maxName).contains(name.utf8.count),
            let reference = labels["containerd.io/snapshot/cri.image-ref"],
            let manifest = digest("manifest-digest"), let layer = digest("layer-digest")
        else { return nil }
        self.name = name
        self.reference = reference
        self.manifest = manifest
        self.layer = layer
    }
}
