import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import Integrity
import LinuxSystem
import Membership
import PeerExchange
import Testing

@testable import Agent

@Suite struct ServingTests {
    private let key: BlobKey
    private let layout: BlobLayout
    private let state: ClusterState
    private let id: WireID
    /// Of two names, who may have the other fetch and who may not.
    private let below: NodeName
    private let above: NodeName

    init() throws {
        let digest = SHA256.hash(Array("blob".utf8))
        key = BlobKey(blob: digest, index: digest)
        let chunks = (0..<4).map { (end: UInt64($0 + 1) * 4096, digest: SHA256.hash([UInt8($0)])) }
        layout = BlobLayout(raw: try ChunkIndex(chunks: chunks))
        id = WireID.blob(digest, index: digest, key: nil)
        let own = try #require(NodeName("own"))
        let record = try #require(NodeRecord(name: own, boot: 1, incarnation: 1, address: "10.0.0.1:1"))
        var state = ClusterState(
            membership: Membership(
                configuration: MembershipConfiguration(), own: record, seed: 1, now: .zero),
            selector: PeerSelector(own: own))
        state.swarms[key] = Swarm(id: id, key: nil, layout: layout)
        state.byID[id] = key
        self.state = state
        let others = (0..<32).compactMap { NodeName("node-\($0)") }
        let blob = id
        below = try #require(others.first { ContentIndex.mayAsk($0, own, blob, segment: 0) })
        above = try #require(others.first { !ContentIndex.mayAsk($0, own, blob, segment: 0) })
    }

    private func request(_ chunk: Int, count: Int = 1, fetch: Bool = true) -> ChunkRequest {
        ChunkRequest(
            chunk: WireID.chunk(layout.index[chunk].digest, key: nil), blob: id, at: chunk, count: count, fetch: fetch)
    }

    @Test func whatIsOnItsWayWhenTheTimeIsOverIsBusyAndNotAbsent() {
        var state = state
        state.swarms[key]?.inFlight[1] = .seconds(1)
        let now = Duration.seconds(2)
        guard case .wait = state.look(request(1), below, hasAsked: false, mayWait: true, now: now) else {
            Issue.record("nobody waits for what is on its way")
            return
        }
        guard
            case .answer(.busy(.zero, [])) = state.look(request(1), below, hasAsked: true, mayWait: false, now: now)
        else {
            Issue.record("who heard absent would go to the registry")
            return
        }
        guard
            case .answer(.absent) = state.look(
                request(1, fetch: false), below, hasAsked: true, mayWait: false, now: now)
        else {
            Issue.record("who asks only for what is here hears that it is not")
            return
        }
    }

    @Test func whatIsHereButCannotBeReadYetIsBusy() {
        var state = state
        state.swarms[key]?.setResident(1)
        // Neither waited for nor fetched: the wait would be over at once, again and again.
        for mayWait in [true, false] {
            guard
                case .answer(.busy(.zero, [])) = state.look(
                    request(1), below, hasAsked: false, mayWait: mayWait, now: .zero)
            else {
                Issue.record("the gate's descriptor is not here")
                return
            }
        }
    }

    @Test func eachUploadEndsByItsOwnTicket() throws {
        var state = state
        state.swarms[key]?.file = try File.memory(name: "blob", size: 4 * 4096)
        for chunk in 0..<4 { state.swarms[key]?.setResident(chunk) }
        var tickets: [UInt64] = []
        for chunk in 0..<2 {
            guard
                case .serve(let ticket, let bytes, _) = state.look(
                    request(chunk), below, hasAsked: false, mayWait: false, now: .zero)
            else {
                Issue.record("chunk \(chunk) is here")
                return
            }
            #expect(bytes.range == UInt64(chunk) * 4096..<UInt64(chunk + 1) * 4096)
            tickets.append(ticket)
        }
        #expect(state.desk.active == 2)
        state.desk.finish(tickets[1])
        state.desk.finish(tickets[1])
        #expect(state.desk.active == 1)
        state.desk.finish(tickets[0])
        #expect(state.desk.active == 0)
    }

    @Test func onlyWhoIsBelowHasItFetched() {
        var state = state
        guard
            case .get(key, [1, 2]) = state.look(
                request(1, count: 2), below, hasAsked: false, mayWait: true, now: .zero)
        else {
            Issue.record("it is to be fetched")
            return
        }
        guard case .answer(.absent) = state.look(request(1), above, hasAsked: false, mayWait: true, now: .zero) else {
            Issue.record("who is above has to fetch it")
            return
        }
    }

    @Test func anotherIdIsAbsentAndALeavingNodeSaysSo() throws {
        var state = state
        var wrong = request(1)
        wrong.chunk = request(2).chunk
        guard case .answer(.absent(nil)) = state.look(wrong, below, hasAsked: false, mayWait: true, now: .zero) else {
            Issue.record("an id that is not the chunk's")
            return
        }
        state.isLeaving = true
        guard
            case .answer(.refused(.leaving)) = state.look(request(1), below, hasAsked: false, mayWait: true, now: .zero)
        else {
            Issue.record("it leaves")
            return
        }
    }
}
