import ChunkModel
import OCISpec

/// Lines: method, target, `Range`. What any process of the node may send to the mirror endpoint.
@Sendable func fuzzMirrorRequest(_ bytes: [UInt8]) {
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.count >= 3 else { return }
    if let wanted = RequestedRange(lines[2]), let range = wanted.range(of: 1000) {
        require(!range.isEmpty && range.upperBound <= 1000, "bytes \(range) of 1000")
    }
    let registries: Set<String> = ["docker.io", "localhost:5000"]
    let parsed = try? MirrorRequest(method: String(lines[0]), target: String(lines[1]), registries: registries)
    guard let request = parsed else { return }
    switch request.subject {
    case .base: break
    case .manifest(let reference):
        require(reference.digest != nil && reference.tag == nil, "a manifest by tag")
        check(reference, registries)
    case .blob(_, let reference): check(reference, registries)
    }
}

/// No host but a listed one, and nothing in the path that a URL could be changed by.
private func check(_ reference: Reference, _ registries: Set<String>) {
    require(registries.contains(reference.registry), "registry \(reference.registry)")
    require(Reference.isRepository(reference.repository), "repository \(reference.repository)")
    require(!reference.repository.contains(".."), "repository \(reference.repository)")
}
