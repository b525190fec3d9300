/// The protocol between chunkd and chunkgate: docs/formats/gate-protocol.md.
///
/// One frame is one SOCK_SEQPACKET message: `kind: u16, version: u16, request: u32`, then the body, all little-endian.
/// File descriptors travel beside the frame (SCM_RIGHTS). A frame that does not decode ends the connection.
package enum GateProtocol {
    /// Version spoken here; a gate refuses any other at `hello`.
    package static let version: UInt16 = 1
    /// Largest frame in bytes; `residencyBits` of a full blob (1 Mi chunks = 128 KiB) is the largest body.
    package static let maxFrameSize = 8 + 12 + Limits.maxChunksPerBlob / 8
    /// File descriptors beside one frame: manifest, bootstrap and one index a blob.
    package static let maxDescriptors = 2 + Limits.maxBlobsPerImage
    /// (blob, chunk) pairs in one `touched` frame.
    package static let maxTouched = 512
    /// Chunks one `verify` request covers: 256 × 1 MiB hash in about 0.15 s.
    package static let maxVerifyChunks = 256
    /// Snapshots in one `snapshots` frame: 64 KiB of them.
    package static let maxListedSnapshots = 8192
    /// Waits in one `blocked` frame: 16 KiB of them.
    package static let maxListedBlocked = 1024
    /// The slot number of a fill that used none (`copy`).
    package static let noSlot: UInt32 = .max

    /// A chunk of a blob the gate has opened. Blob handles are the gate's, valid for one connection.
    package struct ChunkAddress: Hashable, Sendable {
        package var blob: UInt32
        package var chunk: UInt32
        package init(blob: UInt32, chunk: UInt32) {
            self.blob = blob
            self.chunk = chunk
        }
    }

    /// What became of a fill.
    package enum FillStatus: UInt32, Sendable {
        /// Written and resident (or resident already).
        case resident = 0
        /// Size or digest differ from the index: nothing was written.
        case mismatch = 1
        /// The backing file refused the write; errno says why. Nothing is marked.
        case writeFailed = 2
        /// Blob or chunk or slot unknown: the agent's view is stale.
        case unknown = 3
    }

    /// One blob of an opened image.
    package struct BlobInfo: Equatable, Sendable {
        package var handle: UInt32
        package var digest: Digest
        package var rawSize: UInt64
        package var chunkCount: UInt32
        package var residentCount: UInt32
        /// Raw bytes of the resident chunks: what removing the blob gives back.
        package var residentBytes: UInt64
        /// All chunks are resident, synced and recorded: the mark is off.
        package var graduated: Bool
        package init(
            handle: UInt32, digest: Digest, rawSize: UInt64, chunkCount: UInt32, residentCount: UInt32,
            residentBytes: UInt64, graduated: Bool
        ) {
            self.handle = handle
            self.digest = digest
            self.rawSize = rawSize
            self.chunkCount = chunkCount
            self.residentCount = residentCount
            self.residentBytes = residentBytes
            self.graduated = graduated
        }
    }

    /// One image the gate has on disk.
    package struct ImageInfo: Equatable, Sendable {
        package var manifest: Digest
        package var mounted: Bool
        /// The group was lost while this image was mounted and partly filled; see docs/operations.md.
        package var tainted: Bool
        package var bootstrapSize: UInt64
        /// Where the gate mounted it, or would.
        package var path: String
        package var blobs: [BlobInfo]
        package init(
            manifest: Digest, mounted: Bool, tainted: Bool, bootstrapSize: UInt64, path: String, blobs: [BlobInfo]
        ) {
            self.manifest = manifest
            self.mounted = mounted
            self.tainted = tainted
            self.bootstrapSize = bootstrapSize
            self.path = path
            self.blobs = blobs
        }
    }

    /// A reader that waits for a chunk.
    package struct BlockedReader: Equatable, Sendable {
        /// As chunkgate's pid namespace has it; 0: not known, from another one or from before a takeover.
        package var pid: UInt32
        package var at: ChunkAddress
        /// How long it has waited.
        package var milliseconds: UInt32
        package init(pid: UInt32, at: ChunkAddress, milliseconds: UInt32) {
            self.pid = pid
            self.at = at
            self.milliseconds = milliseconds
        }
    }

    /// Whose owner, group and mode the `fs` directory of a new snapshot gets: an overlay's root shows its upper
    /// directory's.
    package enum SnapshotLike: Equatable, Sendable {
        /// root, root, 0755.
        case none
        /// Another snapshot's `fs` directory.
        case snapshot(UInt64)
        /// The root directory of a mounted image.
        case image(Digest)
    }

    /// Counters of the gate, by number on the wire. New ones are appended; an unknown number is skipped.
    package enum Counter: UInt16, CaseIterable, Sendable {
        case events = 1
        case hits = 2
        case misses = 3
        case bytesAsked = 4
        case denied = 5
        case deniedDeadline = 6
        case selfEvents = 7
        case strayEvents = 8
        case blockedReaders = 9
        case oldestBlockedMilliseconds = 10
        case fills = 11
        case fillBytes = 12
        case fillMismatches = 13
        case fillWriteErrors = 14
        case localCopies = 15
        case syncErrors = 16
        case graduations = 17
        case integrityGaps = 18
        case restarts = 19
        case adopted = 20
        case staleDenied = 21
        case mapFallbacks = 22
        case residentBytes = 23
        case verifyFailures = 24
        case snapshotsMade = 25
        case snapshotsRemoved = 26
        case snapshotMakeErrors = 27
        case snapshotRemoveErrors = 28
        case snapshotUsageErrors = 29
        case snapshotLeftovers = 30
        case snapshotTrash = 31
    }

    /// Frames from chunkd to chunkgate. A request number is the agent's and comes back on the reply.
    package enum Request: Equatable, Sendable {
        /// First frame, with the arena: a memfd sealed against shrinking, `slotCount` × `slotSize` bytes.
        case hello(slotSize: UInt32, slotCount: UInt32)
        /// With descriptors manifest, bootstrap, index…; or with none for an image the gate has. → `image`
        case openImage(manifest: Digest, mount: Bool, blobCount: UInt32)
        /// → `reply`
        case closeImage(manifest: Digest)
        /// The chunk's raw bytes lie at the start of `slot`. → `filled`
        case fill(at: ChunkAddress, slot: UInt32, length: UInt32, repair: Bool)
        /// No source could give the chunk: blocked readers get EIO. No reply.
        case fail(at: ChunkAddress, errno: UInt32)
        /// Copy from a resident chunk of the same digest. → `filled` with `noSlot`
        case copy(to: ChunkAddress, from: ChunkAddress)
        /// → `residencyBits`
        case residency(blob: UInt32)
        /// → `image`…, `end`
        case list
        /// → `counters`
        case stat
        /// Hash resident chunks on disk. → `verified`
        case verify(blob: UInt32, first: UInt32, count: UInt32)
        /// Remove an unmounted image and the blobs only it names. → `reply`, value = bytes freed
        case removeImage(manifest: Digest)
        /// The blob's backing file, for reading only. → `reply` with a descriptor, or an errno
        case blobFile(blob: UInt32)
        /// An image's bootstrap, for reading only. → `reply` with a descriptor, or an errno
        case bootstrapFile(manifest: Digest)
        /// Make a snapshot's directories. EEXIST when they are there. → `reply`
        case makeSnapshot(id: UInt64, like: SnapshotLike)
        /// Remove them, whatever is in them. → `reply`, value = 1, or 0 when there were none
        case removeSnapshot(id: UInt64)
        /// Measure a snapshot's `fs` directory. → `snapshotUsage`, or `reply`
        case snapshotUsage(id: UInt64)
        /// The least numbers above `after`. → `snapshots`
        case listSnapshots(after: UInt64)
        /// Who waits for what. → `blocked`
        case listBlocked
        /// With a listening unix socket: keep it for the next chunkd. Without: keep none. → `reply`
        case keepListener
        /// The socket that is kept. → `reply` with a descriptor, or ENOENT
        case keptListener
    }

    /// Frames from chunkgate to chunkd. `request` is 0 on those nobody asked for.
    package enum Event: Equatable, Sendable {
        case helloReply(integrityGap: Bool, epoch: UInt64)
        /// A reader waits for this chunk. Sent once until filled or failed; again after a reconnect.
        case miss(ChunkAddress)
        /// First reads, since mount, of chunks that were resident: how sequential readers are followed.
        case touched([ChunkAddress])
        case filled(at: ChunkAddress, slot: UInt32, status: FillStatus, errno: UInt32)
        case reply(errno: UInt32, value: UInt64, message: String)
        case image(ImageInfo)
        case end
        case residencyBits(blob: UInt32, chunkCount: UInt32, bits: [UInt8])
        case counters([Counter: UInt64])
        case verified(blob: UInt32, checked: UInt32, absent: UInt32, bad: [UInt32])
        /// Allocated bytes, and inodes, of a snapshot's `fs` directory, itself included.
        case snapshotUsage(id: UInt64, bytes: UInt64, inodes: UInt64)
        /// Ascending; `maxListedSnapshots` of them: there may be more.
        case snapshots([UInt64])
        /// Those who have waited longest first; `maxListedBlocked` of them: there may be more. A reader that waits for
        /// several chunks is there once for each.
        case blocked([BlockedReader])
    }

    /// Why bytes are no frame.
    package enum Malformed: Error, Equatable {
        case tooLarge(Int)
        case truncated
        case version(UInt16)
        /// With the number of the request, which a newer chunkd made.
        case unknownKind(UInt16, number: UInt32)
        case badValue(field: String)
    }

}
