internal import GRDB
internal import LinuxSystem

/// How a database was found.
package enum DatabaseCondition: Equatable, Sendable {
    case opened
    case created
    /// It was damaged: the file now lies at `setAside`, and this one is empty.
    case damaged(setAside: String, reason: String)
}

/// Opening SQLite files: checked, migrated, and set aside when they are damaged.
enum DatabaseFile {
    /// Opens or makes the database at `path`. Blocking.
    ///
    /// A newer schema is refused (`newerSchema`); a damaged file is set aside and a new one begun.
    /// - Parameter isDurable: whether a transaction that returned survives a power cut, at the price of an fdatasync. Then
    ///   all go through one connection: readers of their own would find their page caches stale after every write.
    static func open(
        _ path: String, label: String, _ migrator: DatabaseMigrator, isDurable: Bool = false
    ) throws(CatalogueError) -> (any DatabaseWriter, DatabaseCondition) {
        let existed = Directory.exists(path)
        do throws(CatalogueError) {
            return (try attempt(path, label, migrator, isDurable), existed ? .opened : .created)
        } catch  where error.code == .corrupt {
            let aside = try setAside(path)
            return (
                try attempt(path, label, migrator, isDurable), .damaged(setAside: aside, reason: error.message)
            )
        }
    }

    private static func attempt(
        _ path: String, _ label: String, _ migrator: DatabaseMigrator, _ isDurable: Bool
    ) throws(CatalogueError) -> any DatabaseWriter {
        var configuration = Configuration()
        configuration.maximumReaderCount = 2
        configuration.label = label
        configuration.busyMode = .timeout(5)
        configuration.prepareDatabase { database in
            // 1 MiB of pages a connection, three connections of a pool: the agent's memory is for chunks.
            try database.execute(sql: "PRAGMA cache_size = -1024")
        }
        do {
            let writer: any DatabaseWriter
            if isDurable {
                configuration.journalMode = .wal
                writer = try DatabaseQueue(path: path, configuration: configuration)
                // Not in `prepareDatabase`: GRDB turns it down to NORMAL when it turns on the WAL.
                try writer.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
            } else {
                writer = try DatabasePool(path: path, configuration: configuration)
            }
            try writer.write { database in
                let check = try String.fetchOne(database, sql: "PRAGMA quick_check(1)") ?? "no answer"
                guard check == "ok" else { throw CatalogueError(.corrupt, "\(label) \(path): \(check)") }
            }
            guard try !writer.read({ try migrator.hasBeenSuperseded($0) }) else {
                throw CatalogueError(
                    .newerSchema,
                    "\(label) \(path) was written by a newer chunkd: upgrade this one, or move the file away "
                        + "to begin a new one")
            }
            try migrator.migrate(writer)
            return writer
        } catch { throw CatalogueError(error, path: path) }
    }

    /// Moves a damaged database and its side files out of the way.
    private static func setAside(_ path: String) throws(CatalogueError) -> String {
        var number = 1
        while Directory.exists("\(path).damaged-\(number)") { number += 1 }
        let target = "\(path).damaged-\(number)"
        do throws(SystemError) {
            try Directory.rename(path, to: target)
            for suffix in ["-wal", "-shm"] where Directory.exists(path + suffix) {
                try Directory.rename(path + suffix, to: target + suffix)
            }
        } catch { throw CatalogueError(.io, "\(path) is damaged and cannot be set aside: \(error)") }
        return target
    }
}
