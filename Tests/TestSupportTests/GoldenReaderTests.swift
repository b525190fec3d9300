import Glibc
import LinuxSystem
import TestSupport
import Testing

@Suite("The golden reader finds every kind of difference", .enabled(if: geteuid() == 0, "devices and owners need root"))
struct GoldenReaderTests {
    private let scratch: ScratchDirectory
    private let original: String
    private let copy: String
    private let seed: UInt64 = 20_241_121

    init() throws {
        scratch = try ScratchDirectory("golden")
        original = try scratch.makeDirectory("original")
        copy = scratch.appending("copy")
        var options = SampleTree.Options(seed: seed)
        options.smallFiles = 20
        options.largeFileSize = 1 << 20
        try SampleTree.make(at: original, options)
        try Command.run("cp", "-a", original, copy)
    }

    private func difference() -> GoldenReader.Difference? {
        do throws(GoldenReader.Difference) {
            try GoldenReader(original: original, seed: seed).compare(with: copy)
            return nil
        } catch { return error }
    }

    @Test("a true copy is equal, and everything in it was looked at")
    func trueCopy() throws {
        let report = try GoldenReader(original: original, seed: seed).compare(with: copy)
        #expect(report.files > 70)
        #expect(report.directories > 45)
        #expect(report.others > 9)
        #expect(report.bytes > 20 << 20)
    }

    @Test(
        "a change is found, and named",
        arguments: [
            ("printf x | dd of=%/sizes/large-random bs=1 seek=700001 conv=notrunc", "sizes/large-random", "byte"),
            ("printf x >>%/sizes/4096", "sizes/4096", "bytes"),
            ("printf x | dd of=%/holes/all bs=1 seek=5000000 conv=notrunc", "holes/all", "byte 5000000"),
            ("rm %/names/-leading-dash", "./names", "entries"),
            ("touch %/modes/extra", "./modes", "entries"),
            ("chmod 600 %/modes/setuid", "modes/setuid", "mode"),
            ("chown 7 %/modes/owned; chmod 640 %/modes/owned", "modes/owned", "owner"),
            ("touch -d @5 %/modes/owned", "modes/owned", "mtime"),
            ("setfattr -n user.name -v other %/attributes/small", "attributes/small", "attribute user.name"),
            ("setfattr -x user.on.directory %/attributes", "./attributes", "attribute names"),
            ("cp -a %/links/first %/x; rm %/links/first; mv %/x %/links/first", "links/first", "links"),
            ("ln -sfn second %/links/relative", "links/relative", "link target"),
            ("rm %/special/pipe; mknod -m 620 %/special/pipe c 1 5", "special/pipe", "type"),
            ("rm %/special/character; mknod -m 666 %/special/character c 1 5", "special/character", "device"),
        ])
    func change(command: String, path: String, what: String) throws {
        let quoted = command.split(separator: "%", omittingEmptySubsequences: false).joined(separator: copy)
        // Changing an entry changes its directory's time, which would be found first.
        try Command.run(
            "sh", "-ec",
            "\(quoted); cd \(original); find . -type d | while IFS= read -r d; do "
                + "touch -h -r \"$d\" \"\(copy)/$d\"; done")
        let found = try #require(difference(), "no difference found after: \(command)")
        #expect(found.description.contains(path) && found.description.contains(what), "\(found)")
    }

    @Test("the same seed makes the same tree")
    func sameSeed() throws {
        let second = try scratch.makeDirectory("second")
        var options = SampleTree.Options(seed: seed)
        options.smallFiles = 20
        options.largeFileSize = 1 << 20
        try SampleTree.make(at: second, options)
        try GoldenReader(original: original, seed: seed, metadata: false).compare(with: second)
    }
}
