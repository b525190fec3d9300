import ChunkModel
import ControlAPI
import ChunkResolution
import Glibc
import LinuxSystem
import Logging
import Membership
import PeerExchange
import PeerTransport
import PeerWire
import Settings
import Synchronization
import Telemetry

/// The shell around `Membership`: frames, timers, seeds.
extension ClusterNode: GossipHandler {
    /// One turn of the thread that keeps the membership's time; false at the end.
    func keepTime() -> Bool {
        let due = state.withLock { $0.membership.nextDeadline }
        let deadline = Monotonic.now.adding(
            milliseconds: Int(max(.zero, min(due - now, .seconds(5))) / .milliseconds(1)) + 1)
        let isStopped: Bool? = alarm.wait(until: deadline) { alarm in
            if alarm.isStopped { return true }
            guard alarm.isRung else { return nil }
            alarm.isRung = false
            return false
        }
        if isStopped == true { return false }
        // Not by `handle`, which wakes this very thread.
        let time = now
        perform(state.withLock { $0.take(.tick, now: time) })
        return true
    }

    /// Hands in what happened, and has the next deadline looked at again.
    func handle(_ event: Membership.Event) -> [Membership.Directive] {
        let time = now
        defer { alarm.update { $0.isRung = true } }
        return state.withLock { $0.take(event, now: time) }
    }

    /// Does what the membership says. Frames to `asker`, whose request is being answered, are given back instead of sent.
    @discardableResult
    func perform(_ directives: [Membership.Directive], answering asker: NodeName? = nil) -> GossipFrame? {
        var answer: GossipFrame?
        for directive in directives {
            switch directive {
            case .send(let frame, let to):
                if let asker, to.name == asker, answer == nil { answer = frame } else { send(frame, to) }
            case .sign(let record): sign(record)
            case .changed(let member): note(member)
            case .conflict(let record):
                parts.logger.error(
                    "another process speaks with this node's name: it has the same certificate, or the clock went back",
                    metadata: ["node": "\(record.name)", "address": "\(record.address)"])
            case .departed: alarm.update { $0.hasDeparted = true }
            case .forgotten, .content, .contentVoid: break
            }
        }
        return answer
    }

    private func note(_ member: Member) {
        guard member.record.name != own else { return }
        parts.metrics.cluster.changes["\(member.state)"].increment()
        let kind: NodeEvent.Kind =
            switch member.state {
            case .alive: .peerJoined
            case .suspect: .peerSuspected
            case .dead: .peerDied
            case .left: .peerLeft
            }
        parts.metrics.events.note(kind, "\(member.record.name)", member.record.address)
        parts.logger.info(
            "member",
            metadata: [
                "node": "\(member.record.name)", "state": "\(member.state)", "address": "\(member.record.address)",
                "zone": "\(member.record.zone)",
            ])
    }

    private func sign(_ record: NodeRecord) {
        let body = SignedRecord.body(of: record)
        do throws(IdentityError) {
            let proof = SignedRecord(body: body, signature: try signer.sign(body), certificate: [])
            guard let signed = record.signed(proof: proof.bytes) else {
                throw IdentityError(.chainTooLong, "record of \(proof.bytes.count) bytes")
            }
            perform(handle(.signed(signed)))
        } catch { parts.logger.error("own record not signed", metadata: ["error": "\(error.message)"]) }
    }

    // MARK: - Out

    private func send(_ frame: GossipFrame, _ to: Destination) {
        guard let text = to.address, let address = PeerAddress(text) else { return }
        let bytes: [UInt8]
        do throws(PeerWireError) { bytes = try GossipCodec.encode(frame) } catch {
            // No frame of a Membership is too long; if one is, others go on without it.
            return parts.logger.error("gossip not sent", metadata: ["error": "\(error)"])
        }
        Task { [self] in
            let begun = now
            do throws(PeerError) {
                let (name, answer) =
                    if let name = to.name {
                        (name, try await client.gossip(bytes, to: PeerEndpoint(name: name, address: address)))
                    } else {
                        try await client.greet(bytes, at: address)
                    }
                parts.metrics.cluster.gossipBytes["out"].increment(by: UInt64(bytes.count))
                state.withLock { [now] in $0.selector.noteRoundTrip(name, now - begun, now: now) }
                receive(answer, from: name)
            } catch {
                parts.metrics.cluster.gossipErrors[error.reason].increment()
                if let name = to.name { perform(handle(.unreachable(name))) }
            }
        }
    }

    private func receive(_ bytes: [UInt8], from name: NodeName) {
        guard !bytes.isEmpty, let frame = verified(bytes, from: name) else { return }
        perform(handle(.received(frame, from: name)))
    }

    // MARK: - In

    /// A peer's frame; the answer rides on the response.
    func gossip(_ bytes: [UInt8], from peer: NodeName) async -> [UInt8]? {
        guard let frame = verified(bytes, from: peer) else { return nil }
        guard let answer = perform(handle(.received(frame, from: peer)), answering: peer) else { return [] }
        return try? GossipCodec.encode(answer)
    }

    /// Decodes a frame, without the records that their owners have not signed.
    func verified(_ bytes: [UInt8], from peer: NodeName) -> GossipFrame? {
        parts.metrics.cluster.gossipBytes["in"].increment(by: UInt64(bytes.count))
        var frame: GossipFrame
        do throws(PeerWireError) { frame = try GossipCodec.decode(bytes).frame } catch {
            parts.metrics.cluster.gossipErrors["malformed"].increment()
            parts.logger.warning("malformed gossip", metadata: ["peer": "\(peer)", "error": "\(error)"])
            return nil
        }
        frame.items.removeAll { item in
            guard case .record(let record) = item else { return false }
            guard record.name != own || !isOwn(record) else { return false }
            return !isSigned(record, by: peer)
        }
        return frame
    }

    private func isOwn(_ record: NodeRecord) -> Bool { state.withLock { $0.membership.own == record } }

    private func isSigned(_ record: NodeRecord, by teller: NodeName) -> Bool {
        guard let signed = SignedRecord(bytes: record.proof) else { return false }
        do throws(IdentityError) {
            let name = try verifier.verify(signed.body, proof: signed.signature)
            if name == record.name { return true }
            throw IdentityError(.wrongName, "a record of \(record.name) is signed by \(name)")
        } catch {
            parts.metrics.cluster.refusals[error.reason.rawValue].increment()
            parts.logger.warning(
                "record refused",
                metadata: ["node": "\(record.name)", "from": "\(teller)", "error": "\(error.message)"])
            return false
        }
    }

    // MARK: - Seeds

    /// Names and addresses where others may be: from the settings and the seeds file, looked up anew each time.
    func lookUpSeeds() async {
        let settings = parts.settings
        let (addresses, problems) = await parts.disk.run { () -> ([String], [SeedProblem]) in
            let (names, wrong) = Self.seedNames(settings)
            let found = names.map { (name: $0, addresses: Self.resolve($0)) }
            let lost = found.filter(\.addresses.isEmpty).map { SeedProblem(reason: .name, detail: $0.name) }
            return (found.flatMap(\.addresses), wrong + lost)
        }
        for problem in problems { parts.metrics.cluster.seedErrors[problem.reason.rawValue].increment() }
        let isNews = seedProblems.withLock { known in
            defer { known = problems }
            return known != problems
        }
        if isNews {
            for problem in problems {
                parts.logger.warning(
                    "a seed is of no use now; it is tried again",
                    metadata: ["reason": "\(problem.reason.rawValue)", "detail": "\(problem.detail)"])
            }
        }
        perform(handle(.seeds(addresses)))
    }

    /// Bytes of a seeds file: 10,000 names of a hundred bytes.
    static let maxSeedsFile = 1 << 20

    /// What the settings and the seeds file name, as written there. Blocks.
    static func seedNames(_ settings: AgentSettings.Cluster) -> (names: [String], problems: [SeedProblem]) {
        var names = settings.seeds.split(whereSeparator: { $0 == "," || $0 == " " }).map(String.init)
        guard !settings.seedsFile.isEmpty else { return (names, []) }
        do throws(SystemError) {
            let bytes = try File(path: settings.seedsFile, flags: O_RDONLY).contents(limit: maxSeedsFile)
            names += String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
                .map { String($0.filter { !$0.isWhitespace }) }.filter { !$0.isEmpty && !$0.hasPrefix("#") }
            return (names, [])
        } catch { return (names, [SeedProblem(reason: .file, detail: "\(error)")]) }
    }

    /// All addresses of `host:port`; none when it cannot be looked up (it is tried again). Blocks.
    static func resolve(_ seed: String) -> [String] {
        let text = seed.contains(":") ? seed : seed + ":4710"
        if let address = PeerAddress(text) { return [address.text] }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return []
        }
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(String(text[..<colon]), nil, &hints, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var out: [String] = []
        var at = list
        while let entry = at, out.count < MembershipLimits.maxSeeds {
            var host = [CChar](repeating: 0, count: 64)
            if getnameinfo(
                entry.pointee.ai_addr, entry.pointee.ai_addrlen, &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST)
                == 0,
                let address = PeerAddress(
                    host: String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self),
                    port: port)
            {
                out.append(address.text)
            }
            at = entry.pointee.ai_next
        }
        return out
    }
}

/// Why nodes cannot be looked for where the settings say.
struct SeedProblem: Equatable, Sendable {
    /// A metric label.
    enum Reason: String, CaseIterable, Sendable {
        /// The seeds file cannot be read.
        case file
        /// A name has no address, or is none.
        case name
    }

    let reason: Reason
    let detail: String
}
