import ChunkModel
import ChunkResolution

/// Blobs made of `sizes`, each chunk with a digest of its own unless `digests` says which content it has.
enum Blobs {
    static func digest(_ content: Int) -> Digest {
        var bytes = [UInt8](repeating: 0, count: 32)
        // Its first bytes are what a digest is hashed by.
        for place in 0..<8 { bytes[7 - place] = UInt8(truncatingIfNeeded: content >> (8 * place)) }
        guard let digest = Digest(rawBytes: bytes) else { fatalError("32 bytes are a digest") }
        return digest
    }

    static func index(chunks: Int, size: Int = 512 << 10, content: (Int) -> Int) -> ChunkIndex {
        let list = (0..<chunks).map { (end: UInt64(($0 + 1) * size), digest: digest(content($0))) }
        guard let index = try? ChunkIndex(chunks: list) else { fatalError("bad test index") }
        return index
    }

    static func layout(chunks: Int, size: Int = 512 << 10, firstContent: Int = 0) -> BlobLayout {
        BlobLayout(raw: index(chunks: chunks, size: size) { firstContent + $0 })
    }
}

/// Feeds a scheduler a script and writes down what it decides, one line a directive: tests people can read.
struct Transcript {
    var scheduler: FetchScheduler
    private(set) var lines: [String] = []
    var now = Duration.zero

    init(_ scheduler: FetchScheduler) { self.scheduler = scheduler }

    mutating func at(_ milliseconds: Int, _ event: FetchScheduler.Event) {
        now = .milliseconds(milliseconds)
        lines.append("\(milliseconds) ms: \(Self.text(event))")
        lines += scheduler.handle(event, now: now).map { "  → " + Self.text($0) }
    }

    var text: String { lines.joined(separator: "\n") }

    private static func text(_ event: FetchScheduler.Event) -> String {
        switch event {
        case .miss(let key): "miss \(key)"
        case .want(let keys, let rank, let repair):
            "want \(keys.map(\.description).joined(separator: " ")) as \(rank)" + (repair ? ", repair" : "")
        case .located(let list):
            list.map { located in
                "located \(located.key): \(located.sources.map(\.description).joined(separator: ", "))"
                    + (located.hedgeAfter.map { ", the next after \($0)" } ?? "")
                    + (located.again.map { ", again after \($0)" } ?? "")
            }.joined(separator: "; ")
        case .rangeEnded(let id, let delivered, let failure):
            "range \(id) ended after \(delivered)" + (failure.map { ": \($0)" } ?? "")
        case .undecodable(let key): "undecodable \(key)"
        case .filled(let key, let status, let errno, let from):
            "filled \(key): \(status)" + (errno == 0 ? "" : " errno \(errno)") + (from.map { " from \($0)" } ?? "")
        case .gateLost: "gate lost"
        case .forget(let blob): "forget \(blob)"
        case .roomMade(let made): made ? "room made" : "no room"
        case .tick: "tick"
        }
    }

    private static func text(_ directive: FetchScheduler.Directive) -> String {
        switch directive {
        case .locate(let key): "locate \(key)"
        case .copy(let to, let from): "copy \(from) to \(to)"
        case .fetch(let plan):
            "fetch \(plan.id): \(plan.blob) chunks \(plan.chunks) from \(plan.source) for \(plan.rank)"
                + (plan.bypassCaches ? ", past caches" : "") + (plan.repair ? ", repair" : "")
        case .cancel(let range): "cancel \(range)"
        case .hasten(let range): "hasten \(range)"
        case .fail(let key, let errno, let reason): "fail \(key) with errno \(errno): \(reason)"
        case .settled(let key, let rank, let resident, let source):
            "settled \(key) (\(rank)): " + (resident ? "resident" : "not had")
                + (source.map { " from \($0)" } ?? "")
        case .quarantined(let key, let source): "quarantined \(source) for \(key)"
        case .released(let blob): "released \(blob)"
        case .complain(let peer, let key): "complain to \(peer) of \(key)"
        case .makeRoom: "make room"
        }
    }
}
