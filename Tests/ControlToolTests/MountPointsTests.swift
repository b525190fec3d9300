import ControlTool
import LinuxSystem
import Testing

private func points(_ text: String) throws -> MountPoints {
    let lines = text.split(separator: "\n")
    let entries = lines.compactMap { MountEntry(line: $0) }
    try #require(entries.count == lines.count)
    return MountPoints(entries: entries)
}

/// The gate's mount, a bind mount of it with a space in its name, a second image, and other things.
private let table = """
    22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
    40 22 0:50 / /var/lib/chunkd/gate/images/a/mnt ro,relatime shared:20 - erofs /var/lib/chunkd/gate/images/a/b.erofs ro
    41 22 0:50 / /mnt/my\\040image ro,nosuid,nodev,relatime shared:20 - erofs /var/lib/chunkd/gate/images/a/b.erofs ro
    42 22 0:51 / /var/lib/chunkd/gate/images/b/mnt ro,relatime - erofs /var/lib/chunkd/gate/images/b/b.erofs ro
    43 22 0:60 / /mnt/data rw,relatime master:1 propagate_from:2 - tmpfs tmpfs rw
    44 43 0:51 / /mnt/data ro,relatime - erofs /var/lib/chunkd/gate/images/b/b.erofs ro
    45 22 0:61 / /mnt/covered ro,relatime - erofs /x.erofs ro
    46 45 0:62 / /mnt/covered rw,relatime - tmpfs tmpfs rw
    """

@Suite struct MountPointsTests {
    @Test func theTopmostMountCounts() throws {
        let points = try points(table)
        #expect(points.top(at: "/mnt/data")?.type == "erofs")
        #expect(points.top(at: "/mnt/covered")?.type == "tmpfs")
        #expect(points.top(at: "/mnt/my image")?.id == 41)
        #expect(points.top(at: "/mnt") == nil)
    }

    @Test func anImageTwiceOnOneDirectoryIsAnError() throws {
        let points = try points(table)
        try points.checkFree("/mnt")
        try points.checkFree("/mnt/covered")
        let error = #expect(throws: ToolError.self) { try points.checkFree("/mnt/my image") }
        #expect(error?.message.contains("has an image mounted already") == true)
        #expect(error?.hint == "chunkctl umount /mnt/my image")
    }

    @Test func aGateMountThatIsNotVisibleHereIsNeverBound() throws {
        let points = try points(table)
        #expect(try points.gateMount(at: "/var/lib/chunkd/gate/images/a/mnt").device == "0:50")
        for path in ["/elsewhere", "/mnt/covered", "/"] {
            let error = #expect(throws: ToolError.self) { try points.gateMount(at: path) }
            #expect(error?.hint.contains("namespace") == true)
        }
    }

    @Test func onlyImagesAreUnmounted() throws {
        let points = try points(table)
        let gate = ["/var/lib/chunkd/gate/images/a/mnt", "/var/lib/chunkd/gate/images/b/mnt"]
        #expect(try points.image(at: "/mnt/my image", gatePaths: gate).id == 41)
        for (path, text) in [
            ("/nothing", "nothing is mounted"), ("/mnt/covered", "tmpfs mount"), (gate[0], "chunkgate's own mount"),
        ] {
            let error = #expect(throws: ToolError.self) { try points.image(at: path, gatePaths: gate) }
            #expect(error?.message.contains(text) == true, "\(path)")
        }
    }

    @Test func otherUsersOfAnImageAreFoundByItsDevice() throws {
        let points = try points(table)
        let bind = try #require(points.top(at: "/mnt/my image"))
        #expect(points.others(of: bind).map(\.id) == [40])
        let second = try #require(points.top(at: "/mnt/data"))
        #expect(points.others(of: second).map(\.id) == [42])
    }

    @Test func aDirectoryIsResolvedOrNamed() throws {
        #expect(try MountPoints.resolve(directory: "/usr/../tmp/.") == "/tmp")
        let missing = #expect(throws: ToolError.self) { try MountPoints.resolve(directory: "/nonexistent/dir") }
        #expect(missing?.hint == "mkdir -p /nonexistent/dir")
        let file = #expect(throws: ToolError.self) { try MountPoints.resolve(directory: "/etc/passwd") }
        #expect(file?.message == "/etc/passwd is not a directory")
    }
}
