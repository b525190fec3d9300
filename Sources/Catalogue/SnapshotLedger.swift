internal import ChunkModel
internal import GRDB
internal import Synchronization

/// Which container snapshots there are: an SQLite database of its own, docs/formats/snapshots.md. Unlike the catalogue it
/// is the truth: containerd keeps names of ours and expects them to be here after any crash. So every change is durable
/// when it returns.
///
/// Thread-safe. Every change is one transaction; all calls run one after the other on GRDB's own queue.
package final class SnapshotLedger: Sendable {
    package let path: String
    package let condition: DatabaseCondition
    /// The number of the first snapshot of this ledger. Directories with smaller ones are of a ledger that was lost:
    /// containers may still write into them.
    package let firstID: UInt64
    /// Durable: SQLite syncs before a transaction returns.
    let database: any DatabaseWriter
    /// Numbers of active snapshots by name, of the latest: who commits one wants its number before anything else.
    private let active = Mutex<[String: UInt64]>([:])

    /// How many of them are remembered; the others are looked up.
    private static let maxActive = 4096

    /// Ancestors followed before a chain is taken for a circle; containerd allows 128 layers.
    package static let maxDepth = 1024

    /// Opens or makes the database at `path`. Blocking: call it at start.
    /// - Parameter firstID: the first number if a ledger is made, above those of all that were before it (the time will
    ///   do); 1 or more.
    package init(path: String, firstID: UInt64) throws(CatalogueError) {
        self.path = path
        (database, condition) = try DatabaseFile.open(path, label: "snapshots", Self.migrator(firstID), isDurable: true)
        do {
            let first = try database.read { try Int64.fetchOne($0, sql: "SELECT firstID FROM ledger") }
            guard let first else { throw CatalogueError(.corrupt, "snapshots \(path): no first number") }
            self.firstID = UInt64(first)
        } catch { throw CatalogueError(error, path: path) }
    }

    private static func migrator(_ firstID: UInt64) -> DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.create(table: "snapshot") { table in
                table.autoIncrementedPrimaryKey("id")
                table.column("name", .text).notNull().unique()
                table.column("parent", .integer).indexed().references("snapshot", onDelete: .restrict)
                table.column("kind", .text).notNull()
                table.column("created", .integer).notNull()
                table.column("updated", .integer).notNull()
                table.column("image", .text).indexed()
                table.column("reference", .text)
                table.column("bytes", .integer).notNull()
                table.column("inodes", .integer).notNull()
            }
            try database.create(table: "label", options: .withoutRowID) { table in
                table.column("snapshot", .integer).notNull().references("snapshot", onDelete: .cascade)
                table.column("key", .text).notNull()
                table.column("value", .text).notNull()
                table.primaryKey(["snapshot", "key"])
            }
            try database.create(table: "ledger") { table in table.column("firstID", .integer).notNull() }
            try database.execute(sql: "INSERT INTO ledger VALUES (?)", arguments: [Int64(clamping: firstID)])
            try database.execute(
                sql: "INSERT INTO sqlite_sequence (name, seq) VALUES ('snapshot', ?)",
                arguments: [Int64(clamping: firstID) - 1])
        }
        migrator.registerMigration("2") { database in
            // Most snapshots have no parent or no image: they need no entry, and a change has fewer pages to sync.
            for column in ["parent", "image"] {
                try database.drop(index: "snapshot_on_\(column)")
                try database.create(
                    index: "snapshot_with_\(column)", on: "snapshot", columns: [column],
                    condition: Column(column) != nil)
            }
        }
        return migrator
    }

    // MARK: - Changing

    /// Adds a snapshot. Its parent must be there and committed, its name must not.
    /// - Returns: it with its number, and its ancestors, nearest first.
    package func add(_ record: SnapshotRecord) async throws -> (SnapshotRecord, ancestors: [SnapshotRecord]) {
        let result = try await write { database in
            guard try Self.id(of: record.name, database) == nil else {
                throw SnapshotError(.exists, "snapshot \(record.name) is there already")
            }
            let ancestors = try record.parent.map { try Self.chain($0, database) } ?? []
            if let parent = ancestors.first, parent.kind != .committed {
                throw SnapshotError(
                    .precondition, "parent \(parent.name) is \(parent.kind.rawValue), expected committed")
            }
            try Self.execute(
                database,
                """
                INSERT INTO snapshot (name, parent, kind, created, updated, image, reference, bytes, inodes)
                VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)
                """,
                [
                    record.name, ancestors.first.map { Int64($0.id) }, record.kind.rawValue, record.created,
                    record.updated, record.image?.manifest.hex, record.image?.reference,
                ])
            var added = record
            added.id = UInt64(database.lastInsertedRowID)
            try Self.insertLabels(record.labels, of: database.lastInsertedRowID, database)
            return (added, ancestors)
        }
        if record.kind == .active {
            active.withLock { if $0.count < Self.maxActive { $0[record.name] = result.0.id } }
        }
        return result
    }

    /// The number of an active snapshot. It may be committed or removed by the time it is used.
    package func activeID(_ name: String) async throws -> UInt64 {
        if let id = active.withLock({ $0[name] }) { return id }
        let record = try await record(name)
        guard record.kind == .active else { throw Self.notActive(record) }
        return record.id
    }

    private static func notActive(_ record: SnapshotRecord) -> SnapshotError {
        SnapshotError(.precondition, "snapshot \(record.name) is \(record.kind.rawValue), expected active")
    }

    /// Makes an active snapshot a committed one with another name; its labels are replaced.
    /// - Parameter parent: what it becomes a child of, if it was prepared without a parent.
    package func commit(
        _ key: String, as name: String, parent: String?, labels: [String: String], usage: SnapshotRecord.Usage,
        at time: Int64
    ) async throws {
        active.withLock { $0[key] = nil }
        try await write { database in
            let record = try Self.record(key, database)
            guard record.kind == .active else { throw Self.notActive(record) }
            guard try Self.id(of: name, database) == nil else {
                throw SnapshotError(.exists, "snapshot \(name) is there already")
            }
            var parentID = try record.parent.flatMap { try Self.id(of: $0, database) }
            if let parent, parent != record.parent {
                guard record.parent == nil else {
                    throw SnapshotError(
                        .precondition, "snapshot \(key) has parent \(record.parent ?? ""), expected \(parent)")
                }
                let found = try Self.record(parent, database)
                guard found.kind == .committed else {
                    throw SnapshotError(.precondition, "parent \(parent) is not committed")
                }
                parentID = Int64(found.id)
            }
            try Self.execute(
                database,
                """
                UPDATE snapshot SET name = ?, parent = ?, kind = ?, created = ?, updated = ?, bytes = ?, inodes = ?
                WHERE id = ?
                """,
                [
                    name, parentID, SnapshotRecord.Kind.committed.rawValue, time, time, Int64(clamping: usage.bytes),
                    Int64(clamping: usage.inodes), Int64(record.id),
                ])
            try Self.setLabels(labels, of: Int64(record.id), database)
        }
    }

    /// Forgets a snapshot without children. Returns it, and whether its image has another snapshot left.
    package func remove(_ name: String) async throws -> (SnapshotRecord, imageIsLeft: Bool) {
        active.withLock { $0[name] = nil }
        return try await write { database in
            let record = try Self.record(name, database)
            let child = try String.fetchOne(
                database.cachedStatement(sql: "SELECT name FROM snapshot WHERE parent = ? LIMIT 1"),
                arguments: [Int64(record.id)])
            if let child { throw SnapshotError(.precondition, "snapshot \(name) has a child: \(child)") }
            try Self.execute(database, "DELETE FROM snapshot WHERE id = ?", [Int64(record.id)])
            let left = try record.image.map { image in
                try Int.fetchOne(
                    database, sql: "SELECT count(*) FROM snapshot WHERE image = ?", arguments: [image.manifest.hex])
            }
            return (record, (left ?? 0) ?? 0 > 0)
        }
    }

    /// Replaces the labels.
    package func update(_ name: String, labels: [String: String], at time: Int64) async throws -> SnapshotRecord {
        try await write { database in
            let id = Int64(try Self.record(name, database).id)
            try database.execute(sql: "UPDATE snapshot SET updated = ? WHERE id = ?", arguments: [time, id])
            try Self.setLabels(labels, of: id, database)
            return try Self.record(name, database)
        }
    }

    // MARK: - Rows

    static let selection = """
        SELECT snapshot.*, (SELECT name FROM snapshot AS above WHERE above.id = snapshot.parent) AS parentName
        FROM snapshot
        """

    private static func id(of name: String, _ database: Database) throws -> Int64? {
        try Int64.fetchOne(
            database.cachedStatement(sql: "SELECT id FROM snapshot WHERE name = ?"), arguments: [name])
    }

    /// Compiled once a connection: what containerd asks for comes thousands of times.
    private static func execute(_ database: Database, _ sql: String, _ arguments: StatementArguments) throws {
        try database.cachedStatement(sql: sql).execute(arguments: arguments)
    }

    static func record(_ name: String, _ database: Database) throws -> SnapshotRecord {
        let row = try Row.fetchOne(
            database.cachedStatement(sql: selection + " WHERE snapshot.name = ?"), arguments: [name])
        guard let row else { throw SnapshotError(.notFound, "snapshot \(name) is not there") }
        return try record(row, database)
    }

    static func chain(_ name: String, _ database: Database) throws -> [SnapshotRecord] {
        var chain = [try record(name, database)]
        while let parent = chain.last?.parent {
            guard chain.count < maxDepth else {
                throw SnapshotError(.precondition, "snapshot \(name) has more than \(maxDepth) ancestors")
            }
            chain.append(try record(parent, database))
        }
        return chain
    }

    static func record(_ row: Row, _ database: Database) throws -> SnapshotRecord {
        let id: Int64 = row["id"]
        let labels = try Row.fetchAll(
            database.cachedStatement(sql: "SELECT key, value FROM label WHERE snapshot = ?"), arguments: [id])
        guard let kind = SnapshotRecord.Kind(rawValue: row["kind"]) else {
            throw CatalogueError(.corrupt, "snapshot \(id) has kind \(row["kind"] as String)")
        }
        var record = SnapshotRecord(
            id: UInt64(id), name: row["name"], parent: row["parentName"], kind: kind, created: row["created"],
            labels: Dictionary(uniqueKeysWithValues: labels.map { ($0[0] as String, $0[1] as String) }))
        record.updated = row["updated"]
        record.usage = .init(
            bytes: UInt64(clamping: row["bytes"] as Int64), inodes: UInt64(clamping: row["inodes"] as Int64))
        if let hex = row["image"] as String? {
            guard let manifest = Digest(hex: hex) else {
                throw CatalogueError(.corrupt, "snapshot \(id) has image \(hex)")
            }
            record.image = .init(manifest: manifest, reference: row["reference"] ?? "")
        }
        return record
    }

    private static func setLabels(_ labels: [String: String], of id: Int64, _ database: Database) throws {
        try execute(database, "DELETE FROM label WHERE snapshot = ?", [id])
        try insertLabels(labels, of: id, database)
    }

    private static func insertLabels(_ labels: [String: String], of id: Int64, _ database: Database) throws {
        for (key, value) in labels {
            try execute(database, "INSERT INTO label (snapshot, key, value) VALUES (?, ?, ?)", [id, key, value])
        }
    }

    /// Without a transaction, which would cost more than most of what is asked: there is one connection, so nothing changes
    /// while `body` runs.
    func read<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws -> Value {
        do { return try await database.writeWithoutTransaction(body) } catch { throw described(error) }
    }

    private func write<Value: Sendable>(_ body: @escaping @Sendable (Database) throws -> Value) async throws -> Value {
        do { return try await database.write(body) } catch { throw described(error) }
    }

    private func described(_ error: any Error) -> any Error {
        error is SnapshotError ? error : CatalogueError(error, path: path)
    }
}
