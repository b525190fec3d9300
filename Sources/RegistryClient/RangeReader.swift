import HTTPTransfer
import OCISpec

/// Reads one range of a blob over as many responses as it takes. Pure: it is told what arrives and says what to keep.
///
/// Always: `position` only grows, bytes are passed on once and in order, never beyond the range.
struct RangeReader: Sendable {
    /// The bytes of the blob that are wanted, not empty.
    let wanted: Range<UInt64>
    /// The blob's size when it is known.
    let totalSize: UInt64?
    /// The next byte to pass on.
    private(set) var position: UInt64
    /// A host sent the whole body instead of the range.
    private(set) var isRangeIgnored = false
    /// Where the running response is.
    private var responseOffset: UInt64 = 0
    private var responseEnd: UInt64 = 0

    /// A server without ranges sends all that comes before; more than this is not waited for (4 GiB, about a minute at
    /// 70 MB/s).
    static let maxSkipped: UInt64 = 4 << 30

    init(wanted: Range<UInt64>, totalSize: UInt64?) {
        self.wanted = wanted
        self.totalSize = totalSize
        position = wanted.lowerBound
    }

    var isDone: Bool { position >= wanted.upperBound }
    /// The range to ask for now; nil asks for the whole blob, which needs no Range header.
    var request: Range<UInt64>? {
        position == 0 && wanted.upperBound == totalSize ? nil : position..<wanted.upperBound
    }

    /// Checks a 200, 206 or 416 head (RFC 9110 sections 14.4, 15.3.7, 15.5.17); other statuses are not for it.
    mutating func accept(_ head: ResponseHead, asked: Range<UInt64>?) throws(RegistryError) {
        let type = head.first("Content-Type").map { $0.lowercased() } ?? ""
        switch head.status {
        case 206:
            guard !type.hasPrefix("multipart/") else {
                throw RegistryError(
                    .malformedResponse, "one range asked for, multipart/byteranges received", status: 206)
            }
            try acceptPart(head, asked: asked)
        case 200:
            try acceptWhole(head, asked: asked)
        case 416:
            let said = head.first("Content-Range").flatMap { ContentRange($0)?.totalSize }
            throw RegistryError(
                .sizeMismatch,
                "bytes \(position)-\(wanted.upperBound - 1) are not satisfiable: expected a blob of "
                    + "\(totalSize.map(String.init) ?? "unknown") bytes, the registry says "
                    + "\(said.map(String.init) ?? "nothing")", status: 416)
        default:
            throw RegistryError(.unexpectedStatus, "status \(head.status) to a range request", status: head.status)
        }
    }

    private mutating func acceptPart(_ head: ResponseHead, asked: Range<UInt64>?) throws(RegistryError) {
        let values = head.values("Content-Range")
        guard values.count == 1, let found = ContentRange(values[0]), let part = found.range else {
            throw RegistryError(
                .malformedResponse,
                "206 with Content-Range \(OCISpecError.quote(values.joined(separator: ", "))), expected one byte range",
                status: 206)
        }
        // A shorter part is allowed, one that starts elsewhere or goes beyond is not.
        guard let asked, part.lowerBound == asked.lowerBound, part.upperBound <= asked.upperBound else {
            throw RegistryError(
                .malformedResponse,
                "asked for bytes \(asked.map { "\($0.lowerBound)-\($0.upperBound - 1)" } ?? "without a range"), "
                    + "received Content-Range \(OCISpecError.quote(values[0]))", status: 206)
        }
        if let totalSize, let said = found.totalSize, said != totalSize {
            throw RegistryError(.sizeMismatch, "blob has \(said) bytes, expected \(totalSize)", status: 206)
        }
        if let length = head.contentLength, length != UInt64(part.count) {
            throw RegistryError(
                .malformedResponse, "Content-Range has \(part.count) bytes, Content-Length \(length)", status: 206)
        }
        (responseOffset, responseEnd) = (part.lowerBound, part.upperBound)
    }

    private mutating func acceptWhole(_ head: ResponseHead, asked: Range<UInt64>?) throws(RegistryError) {
        if let totalSize, let length = head.contentLength, length != totalSize {
            throw RegistryError(.sizeMismatch, "blob has \(length) bytes, expected \(totalSize)", status: 200)
        }
        if asked != nil { isRangeIgnored = true }
        guard position <= Self.maxSkipped else {
            throw RegistryError(
                .malformedResponse, "Range is ignored and the part wanted begins only at byte \(position)", status: 200)
        }
        (responseOffset, responseEnd) = (0, .max)
    }

    /// What of a piece of `count` bytes is wanted, as offsets in the piece; empty when nothing is. Does not move.
    func keep(_ count: Int) -> Range<Int> {
        let end = min(
            responseOffset.addingReportingOverflow(UInt64(count)).partialValue, responseEnd, wanted.upperBound)
        guard end > position else { return 0..<0 }
        return Int(position - responseOffset)..<Int(end - responseOffset)
    }

    /// A piece was taken.
    mutating func took(_ count: Int) {
        let kept = keep(count)
        position += UInt64(kept.count)
        responseOffset += UInt64(count)
    }

    /// The running response has brought more than is wanted of it. (One that ends exactly there is read to its end, so
    /// that the connection stays usable.)
    var isBeyond: Bool { responseOffset > min(responseEnd, wanted.upperBound) }
}
