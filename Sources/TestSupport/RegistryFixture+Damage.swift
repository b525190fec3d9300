extension RegistryFixture {
    /// The file in which the registry keeps its largest blob, to be damaged; nil when it has none.
    package func largestBlob() throws -> String? {
        let blobs = dataDirectory + "/docker/registry/v2/blobs"
        let lines = try Command.run("find", blobs, "-name", "data", "-printf", "%s %p\n")
        let sized = lines.split(separator: "\n").compactMap { line -> (size: Int, path: String)? in
            let parts = line.split(separator: " ", maxSplits: 1)
            return parts.count == 2 ? Int(parts[0]).map { ($0, String(parts[1])) } : nil
        }
        return sized.max { $0.size < $1.size }?.path
    }
}
