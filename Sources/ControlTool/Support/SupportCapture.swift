import Glibc
import LinuxSystem

/// Files and programs as pieces of a support bundle. Blocking.
enum SupportCapture {
    /// A file, or the first bytes of it.
    static func file(_ path: String, limit: Int = SupportCollector.maxBytes) throws -> SupportCollector.Piece {
        let bytes = try readProcFile(path, limit: limit + 1)
        return SupportCollector.Piece(bytes: Array(bytes.prefix(limit)), isCut: bytes.count > limit)
    }

    /// Files one after the other, each under its name; one that cannot be read says why in its place.
    static func files(_ paths: [String], limit: Int = 64 << 10) -> SupportCollector.Piece {
        var text: [UInt8] = []
        for path in paths {
            text += Array("==> \(path)\n".utf8)
            do throws(SystemError) {
                let bytes = try readProcFile(path, limit: limit)
                text += bytes.prefix(limit)
                if text.last != UInt8(ascii: "\n") { text.append(UInt8(ascii: "\n")) }
            } catch { text += Array("(\(error))\n".utf8) }
        }
        return SupportCollector.Piece(bytes: text)
    }

    /// What part of a program's output is kept when there is more than fits.
    enum Part: String { case head, tail }

    /// LIMIT SECONDS PART DIRECTORY PROGRAM…: the output goes to a file, never more of it than the limit; a program that
    /// does not end is killed.
    private static let script = """
        limit=$1 seconds=$2 part=$3 directory=$4
        shift 4
        { timeout -k 2 "$seconds" "$@" 2>"$directory/errors"; echo $? >"$directory/status"; } |
            "$part" -c "$limit" >"$directory/output"
        """

    /// What a program prints on its standard output. Nothing and an error when it is not installed.
    static func program(
        _ name: String, _ arguments: [String], keeping part: Part = .head, limit: Int = 8 << 20, seconds: Int = 15
    ) throws -> SupportCollector.Piece {
        guard let path = Program.find(name) else { throw ToolError("notFound", "\(name) is not installed") }
        let scratch = try TemporaryFolder()
        let words = ["-c", script, "sh", "\(limit + 1)", "\(seconds)", part.rawValue, scratch.path, path] + arguments
        let shell = try Program.run("/bin/sh", words)
        guard shell.status == 0 else { throw ToolError("failed", "\(name): \(shell.output)") }
        func text(_ file: String) throws -> [UInt8] { try readProcFile(scratch.path + "/" + file, limit: limit + 1) }
        var bytes = try text("output")
        let isCut = bytes.count > limit
        if isCut { if part == .head { bytes.removeLast() } else { bytes.removeFirst() } }
        let status = String(decoding: try text("status"), as: UTF8.self).split(separator: "\n").first ?? ""
        var piece = SupportCollector.Piece(bytes: bytes, isCut: isCut)
        if status == "124" || status == "137" {
            piece.error = "\(name) was ended after \(seconds) s"
        } else if status != "0", !isCut {
            let errors = String(decoding: try text("errors").prefix(500), as: UTF8.self)
            let reason = errors.split(separator: "\n").joined(separator: "; ")
            piece.error = "\(name) ended with status \(status): \(reason)"
        }
        return piece
    }
}

/// A directory of its own for its owner alone, removed with all that is in it.
final class TemporaryFolder: Sendable {
    let path: String

    init(beneath parent: String = "/tmp") throws(SystemError) {
        var template = Array((parent + "/chunkd-support-XXXXXX").utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError(errno, "mkdtemp", parent) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { remove() }

    /// Removes it now; again is no error.
    func remove() { Self.remove(path) }

    /// Follows no link; what cannot be removed is left.
    private static func remove(_ path: String) {
        for name in (try? Directory.names(path)) ?? [] {
            // ENOTEMPTY, EISDIR: it is a directory.
            if unlink(path + "/" + name) != 0 { remove(path + "/" + name) }
        }
        rmdir(path)
    }
}
