import LinuxSystem

/// What Prometheus expects of every process, read from /proc/self (proc(5)).
package enum ProcessMetrics {
    /// Resident memory in bytes; 0 when /proc cannot be read.
    package static func residentBytes() -> UInt64 {
        guard let bytes = try? readProcFile("/proc/self/statm", limit: 4096) else { return 0 }
        let fields = String(decoding: bytes, as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? (UInt64(fields[1]) ?? 0) * 4096 : 0
    }

    /// Declares `process_resident_memory_bytes`, brought up to date at each scrape.
    package static func declare(in registry: MetricsRegistry) {
        let memory = registry.gauge("process_resident_memory_bytes", "Resident memory size in bytes.")
        registry.onCollect { memory.set(residentBytes()) }
    }
}
