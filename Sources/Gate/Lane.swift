import LinuxSystem

/// Jobs done one after the other on a thread of their own, for requests that wait for a disk.
final class Lane: Sendable {
    private struct Jobs {
        var waiting: [@Sendable () -> Void] = []
        var underWay = 0
    }

    private let name: String
    private let capacity: Int
    private let jobs = Monitor(Jobs())

    /// At most `capacity` jobs are taken and not done.
    init(_ name: String, capacity: Int) {
        self.name = name
        self.capacity = capacity
    }

    func start() throws(SystemError) {
        try Thread.start(name) { [self] in
            while true {
                for job in take() {
                    job()
                    jobs.withLock { $0.underWay -= 1 }
                }
            }
        }
    }

    private func take() -> [@Sendable () -> Void] {
        jobs.wait { jobs in
            guard !jobs.waiting.isEmpty else { return nil }
            defer { (jobs.underWay, jobs.waiting) = (jobs.waiting.count, []) }
            return jobs.waiting
        } ?? []
    }

    /// Queues a job; false when there is no room.
    func add(_ job: @escaping @Sendable () -> Void) -> Bool {
        jobs.update { jobs in
            guard jobs.waiting.count + jobs.underWay < capacity else { return false }
            jobs.waiting.append(job)
            return true
        }
    }

    /// Jobs taken and not done.
    var count: Int { jobs.withLock { $0.waiting.count + $0.underWay } }
    var hasRoom: Bool { count < capacity }
}
