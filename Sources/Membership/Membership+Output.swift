internal import ChunkModel

extension Membership {
    /// What one call of `handle` will return, collected by receiver, so that all that goes to one peer goes at once.
    struct Output: Sendable {
        struct Parcel: Sendable {
            /// The receiver's slot; nil for a seed or a stranger.
            var slot: Int?
            var destination: Destination
            var frame = GossipFrame()
            /// Bytes of news to add.
            var newsBytes: Int
            /// Only sent when there are news.
            var isGossip = false
            /// What is in the frame already, by bounds.
            var bytes = 0
        }

        var directives: [Directive] = []
        var parcels: [Parcel] = []
    }

    /// Puts a message for a member into this call's frame for it.
    mutating func send(_ message: GossipMessage? = nil, items: [GossipItem] = [], to slot: Int) {
        guard let record = table[slot]?.record, slot != 0 else { return }
        // Items of an answer in anti-entropy are not mixed with others: they are read as claims, not as news.
        let bytes = items.reduce(message?.byteBound ?? 0) { $0 + $1.byteBound }
        let at: Int
        if let found = output.parcels.lastIndex(where: { $0.slot == slot }),
            output.parcels[found].bytes + bytes <= MembershipLimits.maxItemBytesPerFrame
        {
            at = found
        } else {
            output.parcels.append(
                Output.Parcel(
                    slot: slot, destination: Destination(name: record.name, address: record.address),
                    newsBytes: configuration.piggybackBytes))
            at = output.parcels.count - 1
        }
        if let message { output.parcels[at].frame.messages.append(message) }
        output.parcels[at].frame.items += items
        output.parcels[at].bytes += bytes
        output.parcels[at].isGossip = false
        switch message {
        case .syncReply, .syncBuckets: output.parcels[at].newsBytes = 0
        default: break
        }
    }

    /// Sends to whoever sent the frame being handled, a member or not.
    mutating func answer(_ message: GossipMessage, items: [GossipItem] = [], to name: NodeName) {
        if let slot = table.find(name) {
            send(message, items: items, to: slot)
        } else {
            sendOutside(GossipFrame(messages: [message], items: items), to: Destination(name: name, address: nil))
        }
    }

    /// Sends to somebody who is not a member.
    mutating func sendOutside(_ frame: GossipFrame, to destination: Destination) {
        output.parcels.append(Output.Parcel(slot: nil, destination: destination, frame: frame, newsBytes: 0))
    }

    /// Sends news to a member, if there are any left when its turn comes.
    mutating func sendGossip(to slot: Int) {
        guard let record = table[slot]?.record, !output.parcels.contains(where: { $0.slot == slot }) else { return }
        output.parcels.append(
            Output.Parcel(
                slot: slot, destination: Destination(name: record.name, address: record.address),
                newsBytes: configuration.gossipBytes, isGossip: true))
    }

    /// Builds the frames. Whoever is suspected or thought dead is told so first (Lifeguard's buddy system).
    mutating func flush(_ now: Duration) -> [Directive] {
        let limit = sendLimit
        var sends: [Directive] = []
        sends.reserveCapacity(output.parcels.count)
        for index in output.parcels.indices {
            var frame = output.parcels[index].frame
            let parcel = output.parcels[index]
            if parcel.newsBytes > 0, !queue.isEmpty {
                // Out of the way while it asks what there is to say.
                var taken = BroadcastQueue()
                swap(&taken, &queue)
                frame.items += taken.take(bytes: parcel.newsBytes, limit: limit) { news(about: $0, sent: $1) }
                swap(&taken, &queue)
            }
            if parcel.isGossip, frame.items.isEmpty { continue }
            if let slot = parcel.slot, let accusation = accusation(of: slot) { frame.items.insert(accusation, at: 0) }
            sends.append(.send(frame, to: parcel.destination))
        }
        output.parcels.removeAll(keepingCapacity: true)
        // What changed comes first: a shell that stops at an error has at least told the others of this process.
        defer { output.directives.removeAll(keepingCapacity: true) }
        return output.directives + sends
    }

    /// What is said of a subject now, after it was sent so many times.
    func news(about subject: BroadcastQueue.Subject, sent: Int) -> GossipItem? {
        switch subject {
        case .member(let slot):
            guard let entry = table[slot] else { return nil }
            if let accusation = accusation(of: slot) { return accusation }
            // Who says goodbye may not be there to be asked.
            guard sent >= configuration.wholeRecords, slot != 0 || !entry.record.hasLeft else {
                return .record(entry.record)
            }
            return .announcement(nameHash: entry.record.nameHash, incarnation: entry.record.incarnation)
        case .content(let slot, let blob):
            guard let entry = table[slot], let value = table.content.value(slot, blob) else { return nil }
            return contentItem(entry.record, blob, value).map { .content($0) }
        }
    }

    /// What a member is accused of; nil when nothing.
    func accusation(of slot: Int) -> GossipItem? {
        guard let entry = table[slot] else { return nil }
        let record = entry.record
        switch entry.state {
        case .alive, .left: return nil
        case .suspect:
            let accuser = suspicions[slot]?.accusers.last ?? own.name
            return .suspect(record.name, incarnation: record.incarnation, accuser: accuser)
        case .dead: return .dead(record.name, incarnation: record.incarnation, accuser: own.name)
        }
    }

    func contentItem(_ record: NodeRecord, _ blob: WireID, _ value: ContentTable.Value) -> ContentItem? {
        ContentItem(
            node: record.name, blob: blob, version: ContentVersion(boot: record.boot, counter: value.counter),
            isGone: value.isGone, payload: value.payload.bytes)
    }
}
