/// The bounds of everything a peer can make this module keep or send. A frame is at most 64 KiB on the wire
/// (docs/formats/gossip.md); what is built here stays below that by these sizes.
package enum MembershipLimits {
    /// Members kept, dead ones included: half as many again as the largest cluster simulated (10,000).
    package static let maxMembers = 16_384
    /// Messages in one frame that are looked at; what is built here has at most a handful.
    package static let maxMessagesPerFrame = 64
    /// Items in one frame that are looked at: 60 KiB of the smallest kind (about 30 bytes) are 2,048.
    package static let maxItemsPerFrame = 2_048
    /// Bytes of items in one frame as built here: 64 KiB less 8 KiB for messages (a list of wants) and news.
    package static let maxItemBytesPerFrame = 56 * 1024
    /// Content items of one node: 40 images of a few blobs each.
    package static let maxContentPerNode = 256
    /// Content items of all nodes: 10,000 nodes × 40 images are 400,000. At 40 bytes kept for each that is 20 MiB.
    package static let maxContentItems = 524_288
    /// Bytes of a content item's payload: what is kept inline beside its length in three words.
    package static let maxContentPayload = 23
    /// Bytes of `ip:port`: an IPv6 address with zone-free brackets and a port is at most 47.
    package static let maxAddressBytes = 64
    /// Bytes of a zone's name, as a Kubernetes label value.
    package static let maxZoneBytes = 63
    /// Bytes of a version string.
    package static let maxVersionBytes = 32
    /// Bytes of a record's proof (signature and leaf certificate); a P-256 leaf and signature take about 700.
    package static let maxProofBytes = 4_096
    /// Incarnations are below this: milliseconds since 1970 reach it in the year 37,000.
    package static let maxIncarnation: UInt64 = 1 << 50
    /// Seeds kept: a headless service may answer with thousands of addresses.
    package static let maxSeeds = 64
    /// Probes under way on behalf of others.
    package static let maxRelays = 256
    /// Changes waiting to be gossiped; above that the most often sent are left to anti-entropy.
    package static let maxBroadcasts = 16_384
    /// Announced records that were asked for a short time ago.
    package static let maxWanted = 4_096
    /// Members to be probed out of turn.
    package static let maxUrgentProbes = 64
    /// Accusers remembered for one suspicion; more change nothing (Lifeguard's K is 3).
    package static let maxAccusers = 4
    /// Entries of one anti-entropy summary: 1,024 × 29 bytes are 29 KiB.
    package static let maxSummaryEntries = 1_024
    /// Members asked for at once: 4 KiB of hashes.
    package static let maxWants = 512
    /// Buckets of anti-entropy. 10,000 members are 39 a bucket; the bucket digests are 2 KiB.
    package static let bucketCount = 256
}
