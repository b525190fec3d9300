package import ChunkModel
internal import GRDB

/// What the ledger is asked; nothing here changes it.
extension SnapshotLedger {
    /// A snapshot and its ancestors, nearest first; `notFound` when it is not there.
    package func chain(_ name: String) async throws -> [SnapshotRecord] {
        try await read { try Self.chain(name, $0) }
    }

    package func record(_ name: String) async throws -> SnapshotRecord {
        try await read { try Self.record(name, $0) }
    }

    /// Snapshots with numbers above `id`, at most `limit`, in order of their numbers.
    package func records(after id: UInt64, limit: Int) async throws -> [SnapshotRecord] {
        try await read { database in
            try Row.fetchAll(
                database, sql: Self.selection + " WHERE snapshot.id > ? ORDER BY snapshot.id LIMIT ?",
                arguments: [Int64(clamping: id), limit]
            ).map { try Self.record($0, database) }
        }
    }

    /// The snapshots of containers (active, or to look at) that have an image beneath them: the names of the first
    /// `limit`, in order of their numbers, and how many there are.
    package func containers(on image: Digest, limit: Int) async throws -> (names: [String], count: Int) {
        try await read { database in
            let names = try String.fetchAll(
                database,
                // UNION, so that even a damaged ledger's circle ends.
                sql: """
                    WITH RECURSIVE above (id) AS (
                        SELECT id FROM snapshot WHERE image = ?
                        UNION SELECT snapshot.id FROM snapshot JOIN above ON snapshot.parent = above.id
                    )
                    SELECT name FROM snapshot WHERE id IN above AND kind IN (?, ?) ORDER BY id
                    """,
                arguments: [
                    image.hex, SnapshotRecord.Kind.active.rawValue, SnapshotRecord.Kind.view.rawValue,
                ])
            return (Array(names.prefix(limit)), names.count)
        }
    }

    /// Numbers of the snapshots that have a directory.
    package func directories() async throws -> Set<UInt64> {
        try await read { database in
            Set(try Int64.fetchAll(database, sql: "SELECT id FROM snapshot WHERE image IS NULL").map { UInt64($0) })
        }
    }

    /// How many snapshots there are of each kind.
    package func counts() async throws -> [SnapshotRecord.Kind: Int] {
        try await read { database in
            let rows = try Row.fetchAll(database, sql: "SELECT kind, count(*) FROM snapshot GROUP BY kind")
            return Dictionary(
                uniqueKeysWithValues: rows.compactMap { row in
                    SnapshotRecord.Kind(rawValue: row[0]).map { ($0, row[1] as Int) }
                })
        }
    }
}
