import Catalogue
import ChunkModel
import ChunkResolution
import ControlAPI
import LinuxSystem
import OCISpec

/// Who is blocked on what, and what happened lately.
extension AgentService {
    package func faults() async throws -> FaultsReply {
        try await answering {
            let readers = try await gate.blocked()
            let waits = await pipeline.waits(for: Array(Set(readers.map(\.at))))
            let names = await images.names(of: Set(waits.values.map(\.blob)))
            let pids = Set(readers.map(\.pid)).subtracting([0])
            let processes = await doctorParts.disk.run {
                Dictionary(uniqueKeysWithValues: pids.map { ($0, ProcessName(pid: $0)) })
            }
            return FaultsReply(
                blocked: readers.map { reader in
                    let wait = waits[reader.at]
                    var out = Self.blocked(reader, wait)
                    out.image = wait.flatMap { names[$0.blob] }
                    out.command = processes[reader.pid]?.command
                    out.container = processes[reader.pid]?.container
                    return out
                }, isCut: readers.count == GateProtocol.maxListedBlocked)
        }
    }

    private static func blocked(_ reader: GateProtocol.BlockedReader, _ wait: ChunkWait?) -> BlockedReader {
        var out = BlockedReader(
            pid: reader.pid, blockedSeconds: Double(reader.milliseconds) / 1000, chunk: UInt64(reader.at.chunk),
            step: "describing")
        guard let wait else { return out }
        out.blob = wait.blob.blob
        out.chunkBytes = wait.chunkBytes.map(UInt64.init)
        guard let found = wait.whereabouts else {
            // Its bytes have come, or its miss is on the way: no longer than a moment.
            if wait.registry != nil { out.step = "writing" }
            return out
        }
        out.step = found.step.rawValue
        out.source = found.source.map(wait.name)
        out.sourceSeconds = wait.asking.map { $0 / .seconds(1) }
        out.secondSource = found.second.map(wait.name)
        out.attempts = UInt64(found.attempts)
        out.asked = found.asked.map(wait.name)
        return out
    }

    package func events(_ request: EventsRequest) async throws -> EventsReply {
        metrics.events.events(after: request.after ?? 0)
    }
}
