import Catalogue
import ChunkModel
import ChunkResolution
import ContentIndex
import Integrity
import Logging
import Membership
import PeerExchange
import PeerTransport
import PeerWire
import Synchronization

/// Joining those who are interested in a blob: the first step of a mount.
extension ClusterNode: MountHandler {
    /// A mount waits this long for the trackers at most: with the registry there it is only about who pays.
    static let trackerPatience = Duration.milliseconds(800)
    /// The trackers are asked again: nodes that mount in the same moment come to them one by one.
    static let again: [Duration] = [.milliseconds(100), .milliseconds(300), .seconds(1), .seconds(3)]
    /// Nodes named in an answer, per blob: each is a signed record of about 1 KiB.
    static let maxNamed = 48

    /// This node is interested in an image from now on. Returns once the trackers have said who else is, or had their time.
    func join(_ image: ImageManifest, key: ManifestKey?) async {
        guard state.withLock({ $0.images[image.digest] == nil }), let shared = SharedImage(image, key: key) else {
            return
        }
        let time = now
        perform(
            state.withLock { state in
                state.images[image.digest] = shared
                return zip(image.keys, shared.blobs).flatMap { blob, id -> [Membership.Directive] in
                    guard state.swarms[blob] == nil else { return [] }
                    let record = ContentRecord(.registered)
                    state.noteOwn(id, record, now: time)
                    return state.take(.publish(blob: id, isGone: false, payload: record.payload), now: time)
                }
            })
        await askTrackers(shared.blobs)
        Task { [weak self] in
            for pause in Self.again {
                try? await Task.sleep(for: pause)
                await self?.askTrackers(shared.blobs)
            }
        }
    }

    /// The blobs of an image that was joined can be shared: how they are cut is known.
    func share(_ blobs: [(key: BlobKey, layout: BlobLayout)], of image: Digest) {
        state.withLock { state in
            guard let shared = state.images[image] else { return }
            for (blob, id) in zip(blobs, shared.blobs) where state.swarms[blob.key] == nil {
                state.swarms[blob.key] = Swarm(id: id, key: shared.key, layout: blob.layout)
                state.byID[id] = blob.key
            }
        }
    }

    /// The image with these blobs is no longer here; `alone` are those that no other image has.
    func part(_ image: Digest, _ keys: [BlobKey], alone: [BlobKey]) {
        let time = now
        let (directives, waiters) = state.withLock { state -> ([Membership.Directive], [Waiting.Waiter]) in
            let shared = state.images.removeValue(forKey: image)
            var waiters = state.waiting.take(alone)
            for name in shared?.parts.keys.sorted() ?? [] { waiters += state.waiting.take(.part(name)) }
            let gone = zip(keys, shared?.blobs ?? []).filter { alone.contains($0.0) }
            let directives = gone.flatMap { key, id -> [Membership.Directive] in
                state.swarms[key] = nil
                state.byID[id] = nil
                state.noteOwn(id, ContentRecord(.gone), now: time)
                return state.take(.publish(blob: id, isGone: true, payload: []), now: time)
            }
            return (directives, waiters)
        }
        perform(directives)
        for waiter in waiters { waiter.resume() }
    }

    /// Tells others of what has come since the last time.
    func announce() {
        let time = now
        perform(
            state.withLock { state in
                state.swarms.filter { $0.value.isNews }.keys.sorted { ($0.blob, $0.index) < ($1.blob, $1.index) }
                    .flatMap { state.publish($0, now: time) } + state.publishWholes(now: time)
            })
    }

    /// Tells the trackers of these names that this node is interested, and takes what they know of others.
    func askTrackers(_ ids: [WireID]) async {
        var wanted: [NodeName: [WireID]] = [:]
        let (own, endpoints) = state.withLock { state -> (NodeRecord, [NodeName: PeerEndpoint]) in
            var endpoints: [NodeName: PeerEndpoint] = [:]
            for id in ids {
                for tracker in state.index.trackers(of: id) where tracker != self.own {
                    guard let member = state.membership.member(tracker),
                        let address = PeerAddress(member.record.address)
                    else { continue }
                    wanted[tracker, default: []].append(id)
                    endpoints[tracker] = PeerEndpoint(name: tracker, address: address)
                }
            }
            return (state.membership.own, endpoints)
        }
        await withTaskGroup(of: Void.self) { group in
            for (tracker, ids) in wanted {
                guard let endpoint = endpoints[tracker], let body = request(ids, own) else { continue }
                group.addTask { [self] in
                    // A tracker that does not answer is one of three, and gossip comes a little later.
                    guard let answer = try? await client.mount(body, to: endpoint, timeout: Self.trackerPatience),
                        !answer.isEmpty, let frame = verified(answer, from: tracker)
                    else { return }
                    perform(handle(.received(frame, from: tracker)))
                }
            }
        }
    }

    /// Our record and what we say of these blobs.
    private func request(_ ids: [WireID], _ record: NodeRecord) -> [UInt8]? {
        let wanted = Set(ids)
        let content = state.withLock { $0.membership.content(of: own) }.filter { wanted.contains($0.blob) }
        return try? GossipCodec.encode(
            GossipFrame(items: [.record(record)] + content.map { .content($0) }))
    }

    /// Somebody mounts: who else is interested, as records and content items.
    func mount(_ request: [UInt8], from peer: NodeName) async -> [UInt8]? {
        guard let frame = verified(request, from: peer) else { return nil }
        perform(handle(.received(frame, from: peer)))
        let blobs = frame.items.compactMap { item -> WireID? in
            if case .content(let content) = item, content.node == peer { content.blob } else { nil }
        }
        let items = state.withLock { state -> [GossipItem] in
            var named: [NodeName] = []
            for blob in blobs.prefix(16) {
                let names = state.index.interested(in: blob).filter { $0 != peer }
                // From a place of the asker's own, so that all of many are named to somebody.
                let start = names.isEmpty ? 0 : Int(Rendezvous.hash(of: peer) % UInt64(names.count))
                for name in (names[start...] + names[..<start]).prefix(Self.maxNamed) where !named.contains(name) {
                    named.append(name)
                }
            }
            let wanted = Set(blobs)
            return named.prefix(Self.maxNamed).flatMap { name -> [GossipItem] in
                guard let member = state.membership.member(name) else { return [] }
                return [.record(member.record)]
                    + state.membership.content(of: name).filter { wanted.contains($0.blob) }.map { .content($0) }
            }
        }
        var answer = GossipFrame(items: items)
        while !answer.items.isEmpty {
            if let bytes = try? GossipCodec.encode(answer) { return bytes }
            // Too long for a frame: fewer.
            answer.items.removeLast(max(1, answer.items.count / 4))
        }
        return []
    }
}
