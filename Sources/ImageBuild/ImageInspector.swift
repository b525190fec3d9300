internal import ChunkModel
internal import ErofsFormat
package import OCISpec
package import RegistryClient

/// Reads what a chunkd image says of itself and checks that its parts agree: manifest, config, bootstrap, chunk indexes
/// and seek tables. Blobs are not read but for their seek tables. Safe from any thread.
package struct ImageInspector: Sendable {
    private let registry: RegistryClient?

    /// `registry` is needed for images in a registry.
    package init(registry: RegistryClient? = nil) { self.registry = registry }

    /// Inspects an image; throws `ImageBuildError`.
    package func inspect(_ location: ImageDestination, platform: Platform? = nil) async throws -> ImageSummary {
        let reader: any ImageReader
        switch location {
        case .layout(let path, let tag): reader = LayoutReader(path: path, tag: tag)
        case .registry(let reference): reader = RegistryReader(client: try required(registry), reference: reference)
        }
        do {
            return try await inspect(reader, location.description, platform ?? .current)
        } catch { throw asImageBuildError(error) }
    }

    private func inspect(
        _ reader: any ImageReader, _ name: String, _ platform: Platform
    ) async throws -> ImageSummary {
        let (descriptor, manifest, bytes) = try await reader.manifest(platform)
        let image: ChunkdImage
        do throws(OCISpecError) {
            image = try ChunkdImage(manifest: manifest, bytes: bytes)
        } catch { throw ImageBuildError(.badSource, name, cause: error) }
        let config = try ImageConfig(try await reader.content(image.config, limit: OCILimits.maxConfigSize))
        var blobs: [ImageSummary.Blob] = []
        for blob in image.blobs { blobs.append(try await summary(of: blob, reader, name)) }
        let bootstrap = try await reader.content(image.bootstrap, limit: Limits.maxBootstrapSize)
        let tree = try await onThread("inspect", Cancellation()) {
            try Self.tree(bootstrap, devices: image.blobs.map(\.rawSize), name)
        }
        return ImageSummary(
            reference: name, manifestDigest: descriptor.digest,
            version: manifest.annotations[ImageParts.versionAnnotation],
            config: Self.summary(of: config, image.config.digest),
            layers: manifest.layers.map { .init(mediaType: $0.mediaType, digest: $0.digest, size: $0.size) },
            blobs: blobs, tree: tree)
    }

    private func summary(
        of blob: ChunkdImage.Blob, _ reader: any ImageReader, _ name: String
    ) async throws -> ImageSummary.Blob {
        let index: ChunkIndex
        let bytes = try await reader.content(blob.index, limit: Limits.maxChunkIndexSize)
        do {
            index = try ChunkIndex(caibx: bytes)
            guard index.rawSize == blob.rawSize else {
                throw ImageBuildError(
                    .invalidImage, "the chunk index ends at \(index.rawSize), the blob's raw size is \(blob.rawSize)")
            }
            if blob.compression == .zstd {
                let size = blob.descriptor.size
                let table = UInt64(SeekTable.encodedSize(frames: index.count))
                guard table <= size else { throw SeekTable.Invalid.wrongBlobSize(expected: table, found: size) }
                let tail = try await reader.part(blob.descriptor, size - table..<size)
                try SeekTable(decoding: tail).check(against: index, blobSize: size)
            }
        } catch { throw ImageBuildError(.invalidImage, "\(name), blob \(blob.descriptor.digest)", cause: error) }
        let sizes = (0..<index.count).map { index[$0].size }
        let bounds = (0...Limits.maxChunkSize.trailingZeroBitCount - 16).map { 65536 << $0 }
        let classes = bounds.map { bound in
            ImageSummary.SizeClass(
                upTo: bound, chunks: sizes.filter { $0 <= bound && $0 > (bound == 65536 ? 0 : bound / 2) }.count)
        }
        return ImageSummary.Blob(
            digest: blob.descriptor.digest, compression: blob.compression.rawValue, rawSize: blob.rawSize,
            storedSize: blob.descriptor.size, chunks: index.count,
            distinctChunks: Set((0..<index.count).map { index[$0].digest }).count, smallestChunk: sizes.min() ?? 0,
            meanChunk: sizes.isEmpty ? 0 : Int(index.rawSize) / sizes.count, largestChunk: sizes.max() ?? 0,
            histogram: classes.filter { $0.chunks > 0 })
    }

    private static func tree(
        _ bootstrap: [UInt8], devices: [UInt64], _ name: String
    ) throws -> ImageSummary.Tree {
        do {
            let found = try bootstrap.withUnsafeBytes { try BootstrapValidator.validate($0, devices: devices) }
            let uuid = try bootstrap.withUnsafeBytes { try Superblock(image: $0).uuid }
            return ImageSummary.Tree(
                files: found.regularFiles, directories: found.directories, symlinks: found.symlinks,
                specialFiles: found.specialFiles, fileBytes: found.fileBytes, uuid: text(uuid: uuid))
        } catch let error as ErofsError {
            throw ImageBuildError(.invalidImage, "\(name): the bootstrap", cause: error)
        }
    }

    private static func text(uuid: [UInt8]) -> String {
        var out = ""
        for (index, byte) in uuid.enumerated() {
            if [4, 6, 8, 10].contains(index) { out += "-" }
            out += byte < 16 ? "0" + String(byte, radix: 16) : String(byte, radix: 16)
        }
        return out
    }

    private static func summary(of config: ImageConfig, _ digest: Digest) -> ImageSummary.Config {
        ImageSummary.Config(
            digest: digest, platform: config.platform?.description, created: config.created,
            user: config.runtime?["User"]?.string, workingDirectory: config.runtime?["WorkingDir"]?.string,
            entrypoint: config.runtime?["Entrypoint"]?.strings, command: config.runtime?["Cmd"]?.strings,
            environment: config.runtime?["Env"]?.strings)
    }
}
