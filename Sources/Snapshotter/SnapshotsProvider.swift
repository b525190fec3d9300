internal import Catalogue
internal import GRPCCore
internal import Logging
internal import SwiftProtobuf

/// containerd's `Snapshots` service: takes requests apart and puts answers together; `SnapshotService` does the work.
struct SnapshotsProvider: WireSnapshots.SimpleServiceProtocol {
    let service: SnapshotService

    func prepare(request: WirePrepareRequest, context: ServerContext) async throws -> WireMountsResponse {
        try await answering {
            try await response(service.prepare(request.key, parent: request.parent, labels: request.labels))
        }
    }

    func view(request: WirePrepareRequest, context: ServerContext) async throws -> WireMountsResponse {
        try await answering {
            try await response(service.view(request.key, parent: request.parent, labels: request.labels))
        }
    }

    func mounts(request: WireKeyRequest, context: ServerContext) async throws -> WireMountsResponse {
        try await answering { try await response(service.mounts(request.key)) }
    }

    func commit(request: WireCommitRequest, context: ServerContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await service.commit(request.key, as: request.name, parent: request.parent, labels: request.labels)
            return Google_Protobuf_Empty()
        }
    }

    func remove(request: WireKeyRequest, context: ServerContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await service.remove(request.key)
            return Google_Protobuf_Empty()
        }
    }

    func stat(request: WireKeyRequest, context: ServerContext) async throws -> WireInfoMessage {
        try await answering { try await message(service.stat(request.key)) }
    }

    func update(request: WireUpdateRequest, context: ServerContext) async throws -> WireInfoMessage {
        try await answering {
            try await message(
                service.update(request.info.name, labels: request.info.labels, mask: request.updateMask.paths))
        }
    }

    func list(
        request: WireListRequest, response: RPCWriter<WireListResponse>, context: ServerContext
    ) async throws {
        try await answering {
            try await service.list(request.filters) { records in
                try await response.write(.with { $0.info = records.map(Self.info) })
            }
        }
    }

    func usage(request: WireKeyRequest, context: ServerContext) async throws -> WireUsageResponse {
        try await answering {
            let usage = try await service.usage(request.key)
            return .with {
                $0.size = Int64(clamping: usage.bytes)
                $0.inodes = Int64(clamping: usage.inodes)
            }
        }
    }

    func cleanup(request: WireCleanupRequest, context: ServerContext) async throws -> Google_Protobuf_Empty {
        try await answering {
            try await service.cleanup()
            return Google_Protobuf_Empty()
        }
    }

    // MARK: - Translation

    private func response(_ mounts: [SnapshotMount]) -> WireMountsResponse {
        .with {
            $0.mounts = mounts.map { mount in
                .with {
                    $0.type = mount.type
                    $0.source = mount.source
                    $0.options = mount.options
                }
            }
        }
    }

    private func message(_ record: SnapshotRecord) -> WireInfoMessage { .with { $0.info = Self.info(record) } }

    private static func info(_ record: SnapshotRecord) -> WireInfo {
        .with {
            $0.name = record.name
            $0.parent = record.parent ?? ""
            $0.kind =
                switch record.kind {
                case .view: .view
                case .active: .active
                case .committed: .committed
                }
            $0.createdAt = timestamp(record.created)
            $0.updatedAt = timestamp(record.updated)
            $0.labels = record.labels
        }
    }

    private static func timestamp(_ nanoseconds: Int64) -> Google_Protobuf_Timestamp {
        let (seconds, rest) = nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        return Google_Protobuf_Timestamp(seconds: seconds, nanos: Int32(rest))
    }

    /// Runs a call; every error leaves with the code that containerd's client turns into its own (errdefs).
    private func answering<Value: Sendable>(_ body: () async throws -> Value) async throws -> Value {
        do { return try await body() } catch let error as RPCError { throw error } catch {
            let known = error as? SnapshotError ?? SnapshotError(.unavailable, "\(error)")
            if known.code == .unavailable {
                service.logger.error("a call of the snapshots service failed", metadata: ["error": "\(error)"])
            }
            // That a layer need not be unpacked is told as this error.
            if known.code != .exists { service.observe(.failed(known.code)) }
            throw RPCError(code: known.status, message: known.message)
        }
    }
}

extension SnapshotError {
    fileprivate var status: RPCError.Code {
        switch code {
        case .invalid: .invalidArgument
        case .notFound: .notFound
        case .exists: .alreadyExists
        case .precondition: .failedPrecondition
        case .unavailable: .unavailable
        }
    }
}
