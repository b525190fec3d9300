package import ChunkModel
internal import GRDB
internal import LinuxSystem

/// What this node knows about its images: an SQLite database in WAL mode. It is a memory, never the truth: which chunks
/// are resident only the gate's maps say, and a lost catalogue is made again from the stored manifests.
///
/// Thread-safe. Every asynchronous call runs on GRDB's own queues, not on the cooperative pool.
package final class Catalogue: Sendable {
    package let path: String
    package let condition: DatabaseCondition
    private let pool: any DatabaseWriter

    /// Rows of one insert transaction: 2,000 × 1.5 µs keeps a writer's turn at 3 ms.
    static let batch = 2000

    /// Opens or makes the database at `path`. Blocking: call it at start.
    ///
    /// A newer schema is refused (`newerSchema`); a damaged file is set aside and a new one begun.
    package init(path: String) throws(CatalogueError) {
        self.path = path
        (pool, condition) = try DatabaseFile.open(path, label: "catalogue", Schema.migrator)
    }

    // MARK: - Images

    /// All images, by manifest digest.
    package func images() async throws(CatalogueError) -> [CatalogueImage] {
        try await read { database in
            let rows = try Row.fetchAll(database, sql: "SELECT * FROM image ORDER BY manifest")
            return try rows.compactMap { try Self.image($0, database) }
        }
    }

    package func image(_ manifest: Digest) async throws(CatalogueError) -> CatalogueImage? {
        try await read { database in
            let row = try Row.fetchOne(
                database, sql: "SELECT * FROM image WHERE manifest = ?", arguments: [manifest.hex])
            return try row.flatMap { try Self.image($0, database) }
        }
    }

    /// The manifest a reference stood for when it was last resolved.
    package func manifest(of reference: String) async throws(CatalogueError) -> Digest? {
        try await read { database in
            let hex = try String.fetchOne(
                database, sql: "SELECT manifest FROM reference WHERE name = ?", arguments: [reference])
            return hex.flatMap { Digest(hex: $0) }
        }
    }

    /// Writes an image. Its references move to it from whatever they stood for; others it had stay.
    package func record(_ image: CatalogueImage) async throws(CatalogueError) {
        try await write { database in
            try database.execute(
                sql: """
                    INSERT INTO image (manifest, repository, lastUsed, pinned, bootstrapSize) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (manifest) DO UPDATE SET repository = excluded.repository,
                        lastUsed = max(lastUsed, excluded.lastUsed), pinned = pinned OR excluded.pinned,
                        bootstrapSize = excluded.bootstrapSize
                    """,
                arguments: [
                    image.manifest.hex, image.repository, image.lastUsed, image.isPinned, Int64(image.bootstrapSize),
                ])
            for name in image.references {
                try database.execute(
                    sql: "INSERT OR REPLACE INTO reference (name, manifest) VALUES (?, ?)",
                    arguments: [name, image.manifest.hex])
            }
            for (position, blob) in image.blobs.enumerated() {
                try database.execute(
                    sql: """
                        INSERT OR IGNORE INTO blob (digest, indexDigest, rawSize, chunkCount, hasPlaces)
                        VALUES (?, ?, ?, ?, 0)
                        """,
                    arguments: [blob.key.blob.hex, blob.key.index.hex, Int64(blob.rawSize), blob.chunkCount])
                try database.execute(
                    sql: "INSERT OR REPLACE INTO imageBlob (manifest, position, blob) VALUES (?, ?, ?)",
                    arguments: [image.manifest.hex, position, try Self.id(of: blob.key, database)])
            }
        }
    }

    /// Notes uses, given as Unix times in seconds. Unknown images are passed over.
    package func touch(_ uses: [(manifest: Digest, at: Double)]) async throws(CatalogueError) {
        let list = uses.map { ($0.manifest.hex, $0.at) }
        try await write { database in
            for (hex, time) in list {
                try database.execute(
                    sql: "UPDATE image SET lastUsed = max(lastUsed, ?) WHERE manifest = ?", arguments: [time, hex])
            }
        }
    }

    /// Sets or takes the pin; false when there is no such image.
    @discardableResult
    package func setPinned(_ manifest: Digest, _ isPinned: Bool) async throws(CatalogueError) -> Bool {
        try await write { database in
            try database.execute(
                sql: "UPDATE image SET pinned = ? WHERE manifest = ?", arguments: [isPinned, manifest.hex])
            return database.changesCount > 0
        }
    }

    /// Forgets an image, its references, and the blobs no other image names with their places.
    package func remove(_ manifest: Digest) async throws(CatalogueError) {
        try await write { database in
            try database.execute(sql: "DELETE FROM image WHERE manifest = ?", arguments: [manifest.hex])
            let unused = "SELECT id FROM blob WHERE id NOT IN (SELECT blob FROM imageBlob)"
            try database.execute(sql: "DELETE FROM place WHERE blob IN (\(unused))")
            try database.execute(sql: "DELETE FROM blob WHERE id IN (\(unused))")
        }
    }

    // MARK: - Places

    /// Makes the chunks of a recorded blob findable by content, in batches, so that nobody waits long. Again is cheap.
    package func addPlaces(of key: BlobKey, _ index: ChunkIndex) async throws(CatalogueError) {
        let state: (id: Int64, hasPlaces: Bool)? = try await read { database in
            let row = try Row.fetchOne(
                database, sql: "SELECT id, hasPlaces FROM blob WHERE digest = ? AND indexDigest = ?",
                arguments: [key.blob.hex, key.index.hex])
            return row.map { ($0["id"], $0["hasPlaces"]) }
        }
        guard let state, !state.hasPlaces else { return }
        var start = 0
        while start < index.count {
            let chunks = start..<min(start + Self.batch, index.count)
            try await write { database in
                let statement = try database.cachedStatement(
                    sql: "INSERT OR IGNORE INTO place (content, blob, chunk) VALUES (?, ?, ?)")
                for chunk in chunks {
                    try statement.execute(arguments: [Self.content(of: index[chunk].digest), state.id, chunk])
                }
            }
            start = chunks.upperBound
        }
        try await write { database in
            try database.execute(sql: "UPDATE blob SET hasPlaces = 1 WHERE id = ?", arguments: [state.id])
        }
    }

    /// Where contents also lie, at most `limit` places each, in the order asked.
    package func places(of digests: [Digest], limit: Int = 8) async throws(CatalogueError) -> [[ChunkPlace]] {
        try await read { database in
            let statement = try database.cachedStatement(
                sql: """
                    SELECT blob.digest, blob.indexDigest, place.chunk FROM place JOIN blob ON blob.id = place.blob
                    WHERE place.content = ? LIMIT ?
                    """)
            return try digests.map { digest in
                try Row.fetchAll(statement, arguments: [Self.content(of: digest), limit]).compactMap { row in
                    guard let blob = Digest(hex: row[0] as String), let index = Digest(hex: row[1] as String) else {
                        return nil
                    }
                    return ChunkPlace(blob: BlobKey(blob: blob, index: index), chunk: row[2])
                }
            }
        }
    }

    // MARK: - Helpers

    /// The first eight bytes of a digest.
    private static func content(of digest: Digest) -> Int64 {
        Int64(bitPattern: digest.rawBytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    private static func id(of key: BlobKey, _ database: Database) throws -> Int64? {
        try Int64.fetchOne(
            database, sql: "SELECT id FROM blob WHERE digest = ? AND indexDigest = ?",
            arguments: [key.blob.hex, key.index.hex])
    }

    /// A row that no longer parses is passed over: the catalogue is a memory, not the truth.
    private static func image(_ row: Row, _ database: Database) throws -> CatalogueImage? {
        let hex: String = row["manifest"]
        guard let manifest = Digest(hex: hex) else { return nil }
        let references = try String.fetchAll(
            database, sql: "SELECT name FROM reference WHERE manifest = ? ORDER BY name", arguments: [hex])
        let blobs = try Row.fetchAll(
            database,
            sql: """
                SELECT digest, indexDigest, rawSize, chunkCount FROM imageBlob JOIN blob ON blob.id = imageBlob.blob
                WHERE manifest = ? ORDER BY position
                """,
            arguments: [hex]
        ).compactMap { row -> CatalogueBlob? in
            guard let blob = Digest(hex: row[0] as String), let index = Digest(hex: row[1] as String) else {
                return nil
            }
            return CatalogueBlob(
                key: BlobKey(blob: blob, index: index), rawSize: UInt64(clamping: row[2] as Int64), chunkCount: row[3])
        }
        return CatalogueImage(
            manifest: manifest, repository: row["repository"], references: references, lastUsed: row["lastUsed"],
            isPinned: row["pinned"], bootstrapSize: UInt64(clamping: row["bootstrapSize"] as Int64), blobs: blobs)
    }

    private func read<Value: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws(CatalogueError) -> Value {
        do { return try await pool.read(body) } catch { throw CatalogueError(error, path: path) }
    }

    private func write<Value: Sendable>(
        _ body: @escaping @Sendable (Database) throws -> Value
    ) async throws(CatalogueError) -> Value {
        do { return try await pool.write(body) } catch { throw CatalogueError(error, path: path) }
    }
}
