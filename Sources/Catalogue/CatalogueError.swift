internal import GRDB

/// Why the catalogue could not do something.
package struct CatalogueError: Error, Sendable, CustomStringConvertible {
    /// Closed set; the raw value is a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// A newer chunkd wrote it: upgrade this one, or move the file away.
        case newerSchema = "newer_schema"
        case corrupt
        case noSpace = "no_space"
        case io
        case `internal`
    }

    package let code: Code
    /// What, where, expected and found.
    package let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    init(_ error: any Error, path: String) {
        if let known = error as? CatalogueError {
            self = known
            return
        }
        guard let database = error as? DatabaseError else {
            self.init(.internal, "catalogue \(path): \(error)")
            return
        }
        let code: Code =
            switch database.resultCode {
            case .SQLITE_CORRUPT, .SQLITE_NOTADB: .corrupt
            case .SQLITE_FULL: .noSpace
            case .SQLITE_IOERR, .SQLITE_CANTOPEN, .SQLITE_READONLY, .SQLITE_PERM: .io
            default: .internal
            }
        let text = database.message ?? "no message"
        self.init(code, "catalogue \(path): sqlite \(database.extendedResultCode.rawValue): \(text)")
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { message }
}
