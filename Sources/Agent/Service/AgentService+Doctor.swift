import Catalogue
import ChunkModel
import ControlAPI
import LinuxSystem
import OCISpec
import RegistryClient

/// What the doctor looks at.
struct DoctorParts: Sendable {
    let catalogue: Catalogue
    let registry: RegistryClient
    let disk: WorkQueue
    let stateDirectory: String
    let gateSocket: String
    /// Registries named in the configuration.
    let configuredHosts: [String]
}

extension AgentService {
    /// Registries asked at once.
    private static let maxRegistries = 16
    /// Below this the cache is about to be in the way.
    private static let lowSpace: UInt64 = 1 << 30

    package func doctor() async throws -> DoctorReply {
        var checks = [gateCheck(), catalogueCheck(), await spaceCheck()]
        let snapshot = await pipeline.snapshot()
        checks.append(
            snapshot.quarantined.isEmpty
                ? DoctorCheck(name: "sources", status: .ok, found: "no source sent wrong bytes")
                : DoctorCheck(
                    name: "sources", status: .fail,
                    found: "wrong bytes for \(snapshot.quarantined.map(\.blob.description).joined(separator: ", "))",
                    advice: "check the registry's storage and every cache before it; see docs/operations.md, Quarantine"
                ))
        checks.append(await integrityCheck())
        return DoctorReply(checks: checks + (await registryChecks()))
    }

    private func gateCheck() -> DoctorCheck {
        gate.current != nil
            ? DoctorCheck(name: "gate", status: .ok, found: "connected to \(doctorParts.gateSocket)")
            : DoctorCheck(
                name: "gate", status: .fail, found: "no connection to \(doctorParts.gateSocket)",
                advice: "start chunkgate; it must run with --agent-user naming chunkd's user")
    }

    private func catalogueCheck() -> DoctorCheck {
        switch doctorParts.catalogue.condition {
        case .opened, .created: DoctorCheck(name: "catalogue", status: .ok, found: doctorParts.catalogue.path)
        case .damaged(let aside, let reason):
            DoctorCheck(
                name: "catalogue", status: .warn, found: "was damaged (\(reason)) and made again",
                advice: "check the disk; \(aside) can be removed")
        }
    }

    private func spaceCheck() async -> DoctorCheck {
        let path = doctorParts.stateDirectory
        do {
            let space = try await doctorParts.disk.run { () throws(SystemError) in try Directory.space(path) }
            let found = "\(space.free >> 20) MiB of \(space.total >> 20) MiB free beneath \(path)"
            return space.free >= Self.lowSpace
                ? DoctorCheck(name: "space", status: .ok, found: found)
                : DoctorCheck(
                    name: "space", status: .warn, found: found,
                    advice: "run chunkctl gc, set quota.highWater, or give the cache a larger disk")
        } catch {
            return DoctorCheck(
                name: "space", status: .fail, found: "\(error)", advice: "see that stateDir exists and is chunkd's")
        }
    }

    private func integrityCheck() async -> DoctorCheck {
        guard let counters = try? await gate.counters() else {
            return DoctorCheck(name: "integrity", status: .warn, found: "unknown without chunkgate")
        }
        let gaps = counters[.integrityGaps] ?? 0
        let selfEvents = counters[.selfEvents] ?? 0
        if gaps == 0, selfEvents == 0 {
            return DoctorCheck(name: "integrity", status: .ok, found: "no gap")
        }
        return DoctorCheck(
            name: "integrity", status: .fail, found: "\(gaps) integrity gaps, \(selfEvents) events of our own",
            advice: "remount tainted images (chunkctl images names them); see docs/operations.md, Tainted mounts")
    }

    private func registryChecks() async -> [DoctorCheck] {
        var hosts = Set(doctorParts.configuredHosts)
        for image in (try? await doctorParts.catalogue.images()) ?? [] {
            if let reference = try? Reference(image.repository) { hosts.insert(reference.registry) }
        }
        let registry = doctorParts.registry
        return await withTaskGroup(of: DoctorCheck.self) { group in
            for host in hosts.sorted().prefix(Self.maxRegistries) {
                group.addTask {
                    do throws(RegistryError) {
                        try await registry.ping(registry: host)
                        return DoctorCheck(name: "registry \(host)", status: .ok, found: "answers")
                    } catch {
                        return DoctorCheck(
                            name: "registry \(host)", status: .fail, found: error.message,
                            advice: error.code == .unauthorized
                                ? "check its login in the configuration"
                                : "check network, proxy, CA and the host's entry")
                    }
                }
            }
            var checks: [DoctorCheck] = []
            for await check in group { checks.append(check) }
            return checks.sorted { $0.name < $1.name }
        }
    }
}
