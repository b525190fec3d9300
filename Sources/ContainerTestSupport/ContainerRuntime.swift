internal import GRPCCore
internal import GRPCNIOTransportHTTP2Posix
internal import SwiftProtobuf

/// containerd as the kubelet sees it: the Container Runtime Interface on a unix socket. A connection a call, so that
/// containerd may be restarted between any two.
package struct ContainerRuntime: Sendable {
    /// Of a call; a pull over a limited link is the longest.
    private static let timeout = Duration.seconds(120)

    private let socket: String
    /// Where containers' outputs go, a file each; must exist.
    private let logs: String

    package init(socket: String, logs: String) {
        self.socket = socket
        self.logs = logs
    }

    /// A pod with the node's network, in which containers run.
    package struct Pod: Sendable {
        package let id: String
        fileprivate let config: CRIPodSandboxConfig
    }

    /// How a command in a container ended.
    package struct Output: Sendable, Equatable {
        package let status: Int32
        package let text: String
        package let errors: String

        package init(status: Int32, text: String, errors: String = "") {
            self.status = status
            self.text = text
            self.errors = errors
        }
    }

    private typealias Client = GRPCClient<HTTP2ClientTransport.Posix>

    private func call<Reply: Sendable>(
        _ body: @Sendable (Client, CallOptions) async throws -> Reply
    ) async throws -> Reply {
        var options = CallOptions.defaults
        options.timeout = Self.timeout
        let transport = try HTTP2ClientTransport.Posix(
            target: .unixDomainSocket(path: socket), transportSecurity: .plaintext)
        return try await withGRPCClient(transport: transport) { try await body($0, options) }
    }

    private func images<Reply: Sendable>(
        _ body: @Sendable (CRIImageService.Client<HTTP2ClientTransport.Posix>, CallOptions) async throws -> Reply
    ) async throws -> Reply {
        try await call { try await body(CRIImageService.Client(wrapping: $0), $1) }
    }

    private func runtime<Reply: Sendable>(
        _ body: @Sendable (CRIRuntimeService.Client<HTTP2ClientTransport.Posix>, CallOptions) async throws -> Reply
    ) async throws -> Reply {
        try await call { try await body(CRIRuntimeService.Client(wrapping: $0), $1) }
    }

    /// Tries again while something is unavailable, as the kubelet does: containerd comes back to a snapshotter that was
    /// away after some seconds.
    private func persisting<Reply: Sendable>(
        _ patience: Duration, _ body: () async throws -> Reply
    ) async throws -> Reply {
        let clock = ContinuousClock()
        let end = clock.now + patience
        while true {
            do { return try await body() } catch let error as RPCError where error.code == .unavailable {
                guard clock.now < end else { throw error }
                try await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    /// Whether it says it can run containers.
    package func isReady() async throws -> Bool {
        let status = try await runtime { try await $0.status(CRIStatusRequest(), options: $1).status }
        return status.conditions.contains { $0.type == "RuntimeReady" && $0.status }
    }

    // MARK: Images

    /// Pulls an image; its id.
    /// - Parameter patience: how long to try again while containerd cannot reach its snapshotter.
    @discardableResult
    package func pull(
        _ image: String, username: String = "", password: String = "", patience: Duration = .zero
    ) async throws -> String {
        var request = CRIPullImageRequest()
        request.image.image = image
        if !username.isEmpty {
            request.auth.username = username
            request.auth.password = password
        }
        let final = request
        return try await persisting(patience) {
            try await images { try await $0.pullImage(final, options: $1).imageRef }
        }
    }

    /// The names of the images it has.
    package func imageNames() async throws -> Set<String> {
        let found = try await images { try await $0.listImages(CRIListImagesRequest(), options: $1).images }
        return Set(found.flatMap(\.repoTags))
    }

    package func removeImage(_ image: String) async throws {
        let request = CRIRemoveImageRequest.with { $0.image.image = image }
        _ = try await images { try await $0.removeImage(request, options: $1) }
    }

    // MARK: Pods and containers

    /// Runs a pod without containers.
    package func runPod(_ name: String) async throws -> Pod {
        let config = CRIPodSandboxConfig.with {
            $0.metadata.name = name
            $0.metadata.uid = name
            $0.metadata.namespace = "default"
            $0.logDirectory = logs
            $0.linux.securityContext.namespaceOptions.network = .node
        }
        let request = CRIRunPodSandboxRequest.with { $0.config = config }
        let id = try await runtime { try await $0.runPodSandbox(request, options: $1).podSandboxID }
        return Pod(id: id, config: config)
    }

    /// Stops and removes a pod with all its containers.
    package func remove(_ pod: Pod) async throws {
        let stop = CRIStopPodSandboxRequest.with { $0.podSandboxID = pod.id }
        let remove = CRIRemovePodSandboxRequest.with { $0.podSandboxID = pod.id }
        try await runtime {
            _ = try await $0.stopPodSandbox(stop, options: $1)
            _ = try await $0.removePodSandbox(remove, options: $1)
        }
    }

    /// Creates and starts a container; its id. Its output goes to `NAME.log` beneath the logs.
    /// - Parameters:
    ///   - command: in place of the image's entrypoint; empty for that.
    ///   - arguments: in place of the image's cmd; empty for that.
    ///   - patience: how long to try again while containerd cannot reach its snapshotter.
    package func start(
        _ name: String, of image: String, in pod: Pod, command: [String] = [], arguments: [String] = [],
        patience: Duration = .zero
    ) async throws -> String {
        let create = CRICreateContainerRequest.with {
            $0.podSandboxID = pod.id
            $0.sandboxConfig = pod.config
            $0.config.metadata.name = name
            $0.config.image.image = image
            $0.config.command = command
            $0.config.args = arguments
            $0.config.logPath = name + ".log"
            $0.config.linux.securityContext.namespaceOptions.network = .node
        }
        return try await persisting(patience) { try await start(create) }
    }

    private func start(_ create: CRICreateContainerRequest) async throws -> String {
        try await runtime { client, options in
            let id = try await client.createContainer(create, options: options).containerID
            let start = CRIStartContainerRequest.with { $0.containerID = id }
            _ = try await client.startContainer(start, options: options)
            return id
        }
    }

    /// Whether a container runs, and the status it ended with.
    package func state(_ container: String) async throws -> (isRunning: Bool, exitCode: Int32) {
        let request = CRIContainerStatusRequest.with { $0.containerID = container }
        let status = try await runtime { try await $0.containerStatus(request, options: $1).status }
        return (status.state == .containerRunning, status.exitCode)
    }

    /// Runs a command in a container to its end, at most a minute.
    package func exec(_ container: String, _ command: String...) async throws -> Output {
        let request = CRIExecSyncRequest.with {
            $0.containerID = container
            $0.cmd = command
            $0.timeout = 60
        }
        let reply = try await runtime { try await $0.execSync(request, options: $1) }
        return Output(
            status: reply.exitCode, text: String(decoding: reply.stdout, as: UTF8.self),
            errors: String(decoding: reply.stderr, as: UTF8.self))
    }

    /// Stops a container (SIGTERM, then SIGKILL) and removes it.
    package func remove(container: String) async throws {
        let stop = CRIStopContainerRequest.with {
            $0.containerID = container
            $0.timeout = 1
        }
        let remove = CRIRemoveContainerRequest.with { $0.containerID = container }
        try await runtime {
            _ = try await $0.stopContainer(stop, options: $1)
            _ = try await $0.removeContainer(remove, options: $1)
        }
    }
}
