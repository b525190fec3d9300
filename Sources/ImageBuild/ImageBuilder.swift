internal import ChunkModel
internal import ErofsFormat
import Glibc
internal import Integrity
internal import LinuxSystem
internal import OCISpec
package import RegistryClient

/// Builds chunkd images: docs/formats/image.md says what they are.
///
/// The same tree gives the same digests, on any machine with the same versions of mkfs.erofs and libzstd. Temporary files
/// are removed however a build ends; cancelling the task ends the programs it runs. Safe from any thread.
package struct ImageBuilder: Sendable {
    private let options: BuildOptions
    private let registry: RegistryClient?

    /// `registry` is needed for sources and destinations in a registry.
    package init(options: BuildOptions, registry: RegistryClient? = nil) {
        self.options = options
        self.registry = registry
    }

    /// Builds and stores an image; throws `ImageBuildError`. `progress` comes from several threads, in order within a phase.
    package func build(
        source: ImageSource, destination: ImageDestination,
        progress: @escaping @Sendable (BuildProgress) -> Void = { _ in }
    ) async throws -> BuildResult {
        let cancellation = Cancellation()
        do {
            let directory = try BuildDirectory(in: options.temporaryDirectory)
            let result: Result<BuildResult, any Error>
            do {
                result = .success(try await build(source, destination, in: directory, cancellation, progress))
            } catch { result = .failure(error) }
            // Not cancellable: what was begun is cleaned up.
            await removed(directory)
            return try result.get()
        } catch { throw asImageBuildError(error) }
    }

    private func build(
        _ source: ImageSource, _ destination: ImageDestination, in directory: BuildDirectory,
        _ cancellation: Cancellation, _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> BuildResult {
        let sink = try ImageSink(destination, registry)
        let tree = try await tree(of: source, in: directory, cancellation, progress)
        let options = options
        let parts = try await onThread("image-build", cancellation) {
            let image = try ErofsImage.make(
                tree: tree.path, in: directory, chunkSize: options.erofsChunkSize, cancellation, progress)
            var blob: PackedBlob?
            if let path = image.blobPath {
                let packer = BlobPacker(options: options, cancellation: cancellation, progress: progress)
                blob = try packer.pack(
                    path, size: image.rawSize, edges: image.edges(ofFilesFrom: options.chunking.min), in: directory)
            }
            return try ImageParts(image, blob, config: tree.config, options)
        }
        let digest = try await sink.store(parts, cancellation, progress)
        return BuildResult(
            destination: destination.description, manifestDigest: digest, fileBytes: parts.summary.fileBytes,
            files: parts.summary.inodes, bootstrapSize: UInt64(parts.bootstrap.count), rawSize: parts.rawSize,
            storedSize: parts.blob?.storedSize ?? 0, chunks: parts.blob?.index.count ?? 0,
            distinctChunks: parts.blob?.distinctChunks ?? 0)
    }

    private func tree(
        of source: ImageSource, in directory: BuildDirectory, _ cancellation: Cancellation,
        _ progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> SourceTree {
        let reader: any ImageReader
        switch source {
        case .directory(let path):
            return try .directory(path, platform: options.platform ?? .current, temporary: directory)
        case .layout(let path, let tag): reader = LayoutReader(path: path, tag: tag)
        case .registry(let reference): reader = RegistryReader(client: try required(registry), reference: reference)
        }
        return try await .image(reader, source, options: options, in: directory, cancellation, progress)
    }

    private func removed(_ directory: BuildDirectory) async {
        // An unstructured task: the caller's cancellation must not reach it.
        await Task { try? await onThread("build-clean", Cancellation()) { directory.remove() } }.value
    }
}

/// The client, or an error that says it is missing.
func required(_ registry: RegistryClient?) throws(ImageBuildError) -> RegistryClient {
    guard let registry else { throw ImageBuildError(.invalidArgument, "no registry client was given") }
    return registry
}
