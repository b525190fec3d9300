import Glibc

/// Small local files, and a thread for calls that block.
enum LocalFile {
    /// Bytes of a credentials file that are read.
    static let maxSize = 1 << 20

    /// The path when a file is there.
    static func existing(_ path: String) -> String? { access(path, R_OK) == 0 ? path : nil }

    /// The whole file; nil when there is none. Blocks: not for the cooperative pool.
    static func read(_ path: String) throws(RegistryError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return nil }
            throw RegistryError(.credentials, "open \(path): errno \(errno)")
        }
        defer { close(descriptor) }
        guard let bytes = drain(descriptor, limit: maxSize) else {
            throw RegistryError(.credentials, "\(path): read error, or more than \(maxSize) bytes")
        }
        return bytes
    }

    /// Reads to the end; nil on an error or beyond `limit` bytes.
    static func drain(_ descriptor: Int32, limit: Int) -> [UInt8]? {
        var out: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0, out.count + count <= limit else { return nil }
            if count == 0 { return out }
            out += buffer[..<count]
        }
    }
}

private final class ThreadBody: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

private func threadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if let argument { Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().run() }
    return nil
}

/// Runs a blocking call on a thread of its own. For what is rare: reading credentials, running a helper.
func onOwnThread<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
    await withCheckedContinuation { continuation in
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, 512 << 10)
        var thread = pthread_t()
        let start = Unmanaged.passRetained(ThreadBody { continuation.resume(returning: body()) })
        guard pthread_create(&thread, &attributes, threadMain, start.toOpaque()) == 0 else {
            // No thread to be had: blocking here for once beats failing.
            start.takeRetainedValue().run()
            return
        }
    }
}
