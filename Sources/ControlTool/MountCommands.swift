import ArgumentParser
import ChunkModel
import ControlAPI
import Glibc
import LinuxSystem

struct MountCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount",
        abstract: "Mount an image on a directory; its bytes are fetched as they are read.",
        discussion: """
            EXAMPLES:
              chunkctl mount registry.example/models/llama:1 /mnt/llama
              chunkctl mount --digest sha256:… registry.example/models/llama:1 /mnt/llama
              chunkctl mount --rootfs registry.example/debian:12 /srv/root

            The mount is read-only and, unless --rootfs is given, without set-user-ID programs and devices.
            """)

    @Argument(help: "Image: HOST[:PORT]/NAME[:TAG][@DIGEST].")
    var reference: String

    @Argument(help: "Directory to mount on.", completion: .directory)
    var directory: String

    @Option(help: "Refuse the image unless its manifest has this digest.")
    var digest: Digest?

    @Flag(help: "Allow set-user-ID programs and devices, as a container's root needs. Keep other users out of DIR.")
    var rootfs = false

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let target = try MountPoints.resolve(directory: directory)
        try MountPoints.current().checkFree(target)
        let client = try common.client()
        let reply = try await client.mount(MountRequest(reference: reference, pinnedDigest: digest))
        do {
            _ = try MountPoints.current().gateMount(at: reply.mountPath)
            try Mount.bind(reply.mountPath, onto: target, isConfined: !rootfs)
        } catch {
            // Nothing of ours is left behind; the gate keeps the image when others use it.
            _ = try? await client.umount(UmountRequest(manifestDigest: reply.manifestDigest))
            throw error
        }
        try Console.show(Versioned(reply, more: ["directory": target]), as: common.output) {
            "mounted \(reference) on \(target): \(Table.bytes(reply.rawBytes)) in \(reply.chunks) chunks, "
                + "\(Table.percent(reply.residentChunks, of: reply.chunks)) here, \(Table.seconds(reply.seconds))"
        }
    }
}

extension Digest: ExpressibleByArgument {
    /// As `--digest` takes it.
    package init?(argument: String) { self.init(argument) }
}

struct UmountCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount",
        abstract: "Unmount an image from a directory.",
        discussion: """
            EXAMPLES:
              chunkctl umount /mnt/llama

            What was fetched stays on the node; the next mount needs no fetch. chunkctl gc removes it.
            Refused, and nothing unmounted, when this is the image's last directory and containers run on it.
            """)

    @Argument(help: "Directory the image is mounted on.", completion: .directory)
    var directory: String

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let target = try MountPoints.resolve(directory: directory)
        let client = try common.client()
        // Unmounting must work while chunkd is away: then only the gate's own mount stays, until chunkd is told.
        let images: Result<[ImageSummary], ControlError>
        do throws(ControlError) { images = .success(try await client.images().images) } catch {
            images = .failure(error)
        }

        let known = (try? images.get()) ?? []
        let mounts = try MountPoints.current()
        let entry = try mounts.image(at: target, gatePaths: known.map(\.mountPath))
        let image = known.first { image in mounts.top(at: image.mountPath)?.device == entry.device }
        if let image, mounts.isLast(entry, gatePath: image.mountPath) {
            // Containers may need what is dropped with the last directory: asked before anything has changed. Any other
            // error is no reason to keep the directory: chunkd then keeps the image.
            do throws(ControlError) {
                _ = try await client.umount(UmountRequest(manifestDigest: image.manifestDigest, dryRun: true))
            } catch { if error.code == .conflict { throw error } }
        }
        do throws(SystemError) { try Mount.unmount(target) } catch {
            throw error.errno == EBUSY
                ? ToolError(
                    "busy", "\(target) is in use", hint: "fuser -vm \(target) shows by whom; stop them and try again")
                : ToolError(error)
        }
        var output = UmountOutput(directory: target, manifestDigest: image?.manifestDigest, released: false)
        if case .failure(let error) = images {
            Console.note("chunkctl: unmounted, but chunkd could not be told: \(error.message)")
        } else if let image, try MountPoints.current().isLast(entry, gatePath: image.mountPath) {
            output.released = try await client.umount(UmountRequest(manifestDigest: image.manifestDigest)).released
        }
        try Console.show(output, as: common.output) {
            "unmounted \(target)" + (output.released ? "" : "; the image stays mounted for others")
        }
    }
}

/// `chunkctl umount -o json`.
private struct UmountOutput: Encodable {
    var apiVersion = ControlVersion.current
    var directory: String
    /// Missing when chunkd does not know the image, or is away.
    var manifestDigest: Digest?
    /// The gate dropped its own mount too.
    var released: Bool
}
