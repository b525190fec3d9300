import FoundationEssentials
import Glibc

/// The programs under test, as built beside the test bundle.
package enum Programs {
    /// Where chunkgate, chunkd and chunkctl are: `CHUNKD_PROGRAMS`, or the directory of the running test program.
    package static var directory: String {
        if let given = ProcessInfo.processInfo.environment["CHUNKD_PROGRAMS"] { return given }
        let own = BytePath("/proc/self/exe")
        let target = (try? own.readLink()).map { String(decoding: $0, as: UTF8.self) } ?? ""
        return target.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 }
    }

    package static func path(_ name: String) -> String { directory + "/" + name }
}
