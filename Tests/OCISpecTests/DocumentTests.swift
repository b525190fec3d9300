import ChunkModel
import FoundationEssentials
import OCISpec
import TestSupport
import Testing

private func digest(_ seed: UInt8) throws -> Digest {
    try #require(Digest(rawBytes: [UInt8](repeating: seed, count: 32)))
}

private func decode<T: Decodable>(_: T.Type, _ json: String) throws -> T {
    try JSONDecoder().decode(T.self, from: Data(json.utf8))
}

@Suite struct DocumentTests {
    let hex = String(repeating: "ab", count: 32)
    var config: String {
        #"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:\#(hex)","size":12}"#
    }

    @Test func aManifestIsReadAndWrittenUnchanged() throws {
        let json =
            #"{"annotations":{"a":"b"},"config":\#(config),"layers":[\#(config)],"#
            + #""mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#
        let manifest = try decode(Manifest.self, json)
        #expect(manifest.config.size == 12)
        #expect(manifest.layers.count == 1)
        #expect(manifest.annotations == ["a": "b"])
        #expect(try decode(Manifest.self, String(decoding: JSONEncoder().encode(manifest), as: UTF8.self)) == manifest)
    }

    @Test(arguments: [
        #"{}"#, #"[]"#, #"{"schemaVersion":1,"config":CONFIG,"layers":[]}"#, #"{"schemaVersion":2,"layers":[]}"#,
        #"{"schemaVersion":2,"config":CONFIG}"#, #"{"schemaVersion":"2","config":CONFIG,"layers":[]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[],"manifests":[]}"#,
        #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","config":CONFIG,"layers":[]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[{"mediaType":"a/b","digest":"sha256:../../x","size":1}]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[{"mediaType":"a/b","digest":"sha256:HEX","size":-1}]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[{"mediaType":"a/b","digest":"sha256:HEX","size":1e30}]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[{"mediaType":"a/b","digest":"sha256:HEX","size":1.5}]}"#,
        #"{"schemaVersion":2,"config":CONFIG,"layers":[{"mediaType":"nonsense","digest":"sha256:HEX","size":1}]}"#,
    ])
    func hostileManifestsAreRefused(template: String) {
        let json = template.replacing("CONFIG", with: config).replacing("HEX", with: hex)
        #expect(throws: (any Error).self) { try decode(Manifest.self, json) }
    }

    @Test func countsAreLimited() {
        let layers = Array(repeating: config, count: OCILimits.maxLayers + 1).joined(separator: ",")
        #expect(throws: OCISpecError.self) {
            try decode(Manifest.self, #"{"schemaVersion":2,"config":\#(config),"layers":[\#(layers)]}"#)
        }
        #expect(throws: OCISpecError.self) {
            try decode(ImageIndex.self, #"{"schemaVersion":2,"manifests":[\#(layers)]}"#)
        }
        let nested = String(repeating: "[", count: 100_000)
        #expect(throws: (any Error).self) { try decode(Manifest.self, nested) }
    }

    @Test func anIndexChoosesByPlatform() throws {
        let index = ImageIndex(manifests: [
            Descriptor(mediaType: MediaTypes.ociManifest, digest: try digest(9), size: 1),
            Descriptor(
                mediaType: MediaTypes.ociIndex, digest: try digest(8), size: 1,
                platform: Platform(os: "linux", architecture: "amd64")),
            Descriptor(
                mediaType: MediaTypes.ociManifest, digest: try digest(1), size: 1,
                platform: Platform(os: "linux", architecture: "amd64")),
            Descriptor(
                mediaType: MediaTypes.dockerManifest, digest: try digest(2), size: 1,
                platform: Platform(os: "linux", architecture: "arm64", variant: "v8")),
            Descriptor(
                mediaType: MediaTypes.ociManifest, digest: try digest(3), size: 1,
                platform: Platform(os: "linux", architecture: "arm", variant: "v6")),
        ])
        #expect(try index.select(Platform("linux/amd64")).digest == digest(1))
        #expect(try index.select(Platform("linux/x86_64")).digest == digest(1))
        #expect(try index.select(Platform("linux/arm64")).digest == digest(2))
        #expect(try index.select(Platform("linux/aarch64/v8")).digest == digest(2))
        #expect(try index.select(Platform("linux/arm/v7")).digest == digest(3))
        #expect { try index.select(Platform("linux/s390x")) } throws: { error in
            (error as? OCISpecError)?.code == .noMatchingPlatform && "\(error)".contains("linux/amd64")
        }
        #expect(throws: OCISpecError.self) { try index.select(Platform("linux/arm/v5")) }
    }

    @Test(arguments: ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "LINUX/amd64", "linux/am d64", "linux//v7"])
    func badPlatformsAreRefused(text: String) {
        #expect(throws: OCISpecError.self) { try Platform(text) }
    }

    @Test func platformsPrintAsTheyAreNormalised() throws {
        #expect(try Platform("linux/arm64/v8").description == "linux/arm64")
        #expect(try Platform("linux/arm").description == "linux/arm/v7")
        #expect(Platform.current.os == "linux")
    }
}

@Suite struct ChunkdImageTests {
    func manifest(_ change: (inout Manifest) throws -> Void = { _ in }) throws -> Manifest {
        let layers = ChunkdImage.layers(
            bootstrap: Descriptor(mediaType: "", digest: try digest(1), size: 8192),
            blobs: [
                ChunkdImage.Blob(
                    descriptor: Descriptor(mediaType: "", digest: try digest(2), size: 1000), compression: .zstd,
                    rawSize: 4096, index: Descriptor(mediaType: "", digest: try digest(3), size: 144),
                    seekTable: try digest(6)),
                ChunkdImage.Blob(
                    descriptor: Descriptor(mediaType: "", digest: try digest(4), size: 8192), compression: .raw,
                    rawSize: 8192, index: Descriptor(mediaType: "", digest: try digest(5), size: 184), seekTable: nil),
            ])
        var out = Manifest(
            config: Descriptor(mediaType: MediaTypes.ociConfig, digest: try digest(0), size: 200), layers: layers)
        try change(&out)
        return out
    }

    func image(_ manifest: Manifest) throws -> ChunkdImage {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try ChunkdImage(manifest: manifest, bytes: Array(try encoder.encode(manifest)))
    }

    @Test func ourManifestIsTakenApart() throws {
        let image = try self.image(manifest())
        #expect(image.config.digest == (try digest(0)))
        #expect(image.bootstrap.digest == (try digest(1)))
        #expect(image.blobs.map(\.compression) == [.zstd, .raw])
        #expect(image.blobs.map(\.rawSize) == [4096, 8192])
        #expect(image.blobs.map(\.seekTable) == [try digest(6), nil])
        #expect(image.blobs.map(\.descriptor.digest) == [try digest(2), try digest(4)])
        #expect(image.blobs.map(\.index.digest) == [try digest(3), try digest(5)])
        let empty = try self.image(manifest { $0.layers = [$0.layers[0]] })
        #expect(empty.blobs.isEmpty)
    }

    @Test func anOrdinaryImageIsToldHowToBuildOne() throws {
        let ordinary = try manifest { $0.layers[0].mediaType = MediaTypes.ociLayerGzip }
        for manifest in [ordinary, try manifest { $0.layers = [] }] {
            #expect { try self.image(manifest) } throws: { error in
                let text = "\(error)"
                return (error as? OCISpecError)?.code == .notChunkdImage && text.hasPrefix("not a chunkd image: ")
                    && text.hasSuffix("; build one with chunkctl image build")
            }
        }
    }

    @Test func everyBrokenShapeIsRefused() throws {
        let changes: [(String, (inout Manifest) throws -> Void)] = [
            ("odd layers", { $0.layers.removeLast() }),
            ("swapped", { $0.layers.swapAt(1, 2) }),
            ("config type", { $0.config.mediaType = MediaTypes.ociEmpty }),
            ("config size", { $0.config.size = UInt64(OCILimits.maxConfigSize) + 1 }),
            ("bootstrap size", { $0.layers[0].size = UInt64(Limits.maxBootstrapSize) + 1 }),
            ("bootstrap too small", { $0.layers[0].size = 0 }),
            ("no raw size", { $0.layers[1].annotations = [:] }),
            ("no seek table", { $0.layers[1].annotations[ChunkdImage.seekTableAnnotation] = nil }),
            (
                "seek table as a digest",
                { $0.layers[1].annotations[ChunkdImage.seekTableAnnotation] = "\(try digest(6))" }
            ),
            ("raw size word", { $0.layers[1].annotations[ChunkdImage.rawSizeAnnotation] = "many" }),
            ("raw size sign", { $0.layers[1].annotations[ChunkdImage.rawSizeAnnotation] = "+4096" }),
            ("raw size zero", { $0.layers[1].annotations[ChunkdImage.rawSizeAnnotation] = "0" }),
            ("raw size absurd", { $0.layers[1].annotations[ChunkdImage.rawSizeAnnotation] = "9999999999999999999" }),
            ("stored larger than raw allows", { $0.layers[1].size = 1 << 30 }),
            ("raw contradicts", { $0.layers[3].annotations[ChunkdImage.rawSizeAnnotation] = "4096" }),
            ("raw empty", { $0.layers[3].size = 0 }),
            ("index size", { $0.layers[2].size = UInt64(Limits.maxChunkIndexSize) + 1 }),
            ("index too small", { $0.layers[2].size = 103 }),
            ("same blob twice", { $0.layers[3].digest = $0.layers[1].digest }),
            ("a digest elsewhere", { $0.annotations["note"] = "\(try digest(9))" }),
            ("a pair of digests elsewhere", { $0.annotations["note"] = "\(try digest(8)) \(try digest(9))" }),
            ("half a digest elsewhere", { $0.layers[1].annotations["note"] = "sha256:0123" }),
            ("blob type", { $0.layers[1].mediaType = MediaTypes.ociLayerZstd }),
            (
                "too many",
                { manifest in
                    for number in 0..<Limits.maxBlobsPerImage {
                        var pair = Array(manifest.layers[3...4])
                        pair[0].digest = try digest(UInt8(number + 10))
                        manifest.layers += pair
                    }
                }
            ),
        ]
        for (name, change) in changes {
            let broken = try manifest(change)
            #expect(throws: OCISpecError.self, "\(name)") { try image(broken) }
        }
    }
}
