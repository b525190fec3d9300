import GRDB
import Testing

@testable import Catalogue

@Suite struct SnapshotLedgerTests {
    @Test func aChangeIsSyncedBeforeItReturns() async throws {
        let scratch = try Scratch()
        for _ in 0..<2 {
            let ledger = try SnapshotLedger(path: scratch.database, firstID: 1)
            let (journal, synchronous) = try await ledger.database.writeWithoutTransaction { database in
                (
                    try String.fetchOne(database, sql: "PRAGMA journal_mode"),
                    try Int.fetchOne(database, sql: "PRAGMA synchronous")
                )
            }
            // 2 is FULL: with a WAL each commit is synced, with NORMAL only checkpoints are (sqlite.org/pragma.html).
            #expect(journal == "wal" && synchronous == 2)
        }
    }
}
