/// One image, many cold nodes: what is varied. Rates are in bytes a second.
package struct DistributionOptions: Sendable {
    package var nodes: Int
    package var seed: UInt64
    package var imageBytes = 1 << 30
    package var chunkBytes = 512 << 10
    /// The part of the nodes that lies: a third of them sends wrong bytes, a third lets others wait for nothing, a third
    /// claims to have everything and has nothing.
    package var liars = 0.0
    package var zones = 1
    /// Each node's link, both ways: 1 Gbit/s.
    package var nodeRate = 125e6
    /// The registry's link: 200 Mbit/s.
    package var registryRate = 25e6
    /// What the registry answers at once; the rest gets 429.
    package var registryRequests = 256
    /// Nodes mount within this time.
    package var spread = 0.1
    /// What gossip takes to reach a node: uniform between the two, in seconds.
    package var gossip = 0.3...2.5
    /// Nodes that are killed while they fetch.
    package var crashes = 0
    /// What is wrong with the nodes themselves; for the tests of the checkers.
    package var fault: Fault?
    /// The virtual time after which a run is given up.
    package var longest = Duration.seconds(3600)

    /// A fault of a node's own that a checker must find.
    package enum Fault: CaseIterable, Sendable {
        /// The gate takes whatever bytes it is given.
        case unverified
        /// A reader of the first chunk is never answered.
        case forgottenMiss
        /// It is answered twice.
        case secondAnswer
        /// It is answered with an error.
        case failedRead
    }

    package init(nodes: Int, seed: UInt64) {
        self.nodes = nodes
        self.seed = seed
    }

    var chunkCount: Int { (imageBytes + chunkBytes - 1) / chunkBytes }
}
