import LinuxSystem
import PeerTransport
import Synchronization
import TestSupport

/// Runs something that blocks on a thread of its own: the cooperative pool's few are what a server under test answers on.
package func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        do {
            try Thread.start("blocking", stackSize: 1 << 20) { continuation.resume(with: Result { try body() }) }
        } catch { continuation.resume(throwing: error) }
    }
}

/// curl(1) against a peer server.
package enum Curl {
    /// `host` is what the server's certificate is checked for; `files` is the client's certificate.
    package static func run(
        _ endpoint: PeerEndpoint, _ target: String, files: IdentityFiles?, more: [String] = []
    ) async throws -> Command.Output {
        var arguments = ["-sS", "--max-time", "20", "--noproxy", "*", "--connect-to", "::" + endpoint.address.text]
        if let files { arguments += ["--cacert", files.bundle, "--cert", files.certificate, "--key", files.key] }
        arguments += more + ["https://\(endpoint.name)\(target)"]
        let command = Command("curl", arguments)
        return try await blocking { try command.run() }
    }
}

/// A few lines of Python with a TLS connection `c` to the server, whose output is returned: for clients that misbehave.
package enum RawClient {
    package static func run(port: Int, files: IdentityFiles, _ script: String) async throws -> Command.Output {
        let text = """
            import socket, ssl, sys, time
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(sys.argv[2])
            context.load_cert_chain(sys.argv[3], sys.argv[4])
            context.set_alpn_protocols(["http/1.1"])
            def connect():
                return context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20))
            def closed(c):  # reads to the end; True when the server ended it
                c.settimeout(15)
                try:
                    while c.recv(65536): pass
                except ConnectionError: pass
                except ssl.SSLError: pass
                except TimeoutError: return False
                return True

            """ + script
        let command = Command(
            "python3", ["-c", text, "\(port)", files.bundle, files.certificate, files.key])
        return try await blocking { try command.run() }
    }
}

/// A flag that tasks of a test share.
package final class Flag: Sendable {
    private let state = Atomic(false)

    package init() {}

    package var isSet: Bool { state.load(ordering: .relaxed) }
    package func set() { state.store(true, ordering: .relaxed) }
}

/// Counters that tasks of a test share, by name.
package final class Tally: Sendable {
    private let state = Mutex<[String: Int]>([:])

    package init() {}

    package func add(_ amount: Int, to name: String) { state.withLock { $0[name, default: 0] += amount } }
    package var all: [String: Int] { state.withLock { $0 } }
    package var sum: Int { all.values.reduce(0, +) }
}
