import Catalogue
import ChunkModel
import Snapshotter
import Synchronization
import TestSupport
import Testing

@Suite("Snapshots of ordinary images")
struct OrdinarySnapshotTests {
    @Test("layers stack as overlayfs has them, nearest first, and a container writes into its own directory")
    func layers() async throws {
        let rig = try Rig()
        let first = try await rig.service.prepare("a", parent: "", labels: [:])
        #expect(first == [SnapshotMount(type: "bind", source: "/s/1/fs", options: ["rw", "rbind"])])
        try await rig.service.commit("a", as: "A", parent: "", labels: ["k": "v"])
        _ = try await rig.service.prepare("b", parent: "A", labels: [:])
        try await rig.service.commit("b", as: "B", parent: "", labels: [:])
        let container = try await rig.service.prepare("c", parent: "B", labels: [:])
        #expect(
            container == [
                SnapshotMount(
                    type: "overlay", source: "overlay",
                    options: ["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"])
            ])
        #expect(try await rig.service.mounts("c") == container)
        #expect(rig.host.state.withLock { $0.made } == [1: .none, 2: .snapshot(1), 3: .snapshot(2)])
        let one = try await rig.service.view("v", parent: "A", labels: [:])
        #expect(one == [SnapshotMount(type: "bind", source: "/s/1/fs", options: ["ro", "rbind"])])
        let two = try await rig.service.view("w", parent: "B", labels: [:])
        #expect(two.first?.options == ["index=off", "lowerdir=/s/2/fs:/s/1/fs"])
    }

    @Test("what containerd's contract forbids is refused with its code, and changes nothing")
    func refusals() async throws {
        let rig = try Rig()
        _ = try await rig.service.prepare("a", parent: "", labels: [:])
        func code(_ body: () async throws -> Void) async -> SnapshotError.Code? {
            do { try await body() } catch { return (error as? SnapshotError)?.code }
            return nil
        }
        #expect(await code { _ = try await rig.service.prepare("a", parent: "", labels: [:]) } == .exists)
        #expect(await code { _ = try await rig.service.prepare("b", parent: "none", labels: [:]) } == .notFound)
        #expect(await code { _ = try await rig.service.prepare("b", parent: "a", labels: [:]) } == .precondition)
        #expect(await code { _ = try await rig.service.prepare("", parent: "", labels: [:]) } == .invalid)
        let long = ["k": String(repeating: "x", count: 4096)]
        #expect(await code { _ = try await rig.service.prepare("b", parent: "", labels: long) } == .invalid)
        try await rig.service.commit("a", as: "A", parent: "", labels: [:])
        #expect(await code { try await rig.service.commit("A", as: "AA", parent: "", labels: [:]) } == .precondition)
        #expect(await code { _ = try await rig.service.mounts("A") } == .precondition)
        _ = try await rig.service.prepare("b", parent: "A", labels: [:])
        #expect(await code { try await rig.service.remove("A") } == .precondition)
        #expect(await code { try await rig.service.commit("b", as: "A", parent: "", labels: [:]) } == .exists)
        #expect(await code { try await rig.service.remove("c") } == .notFound)
        #expect(try await rig.ledger.records(after: 0, limit: 9).map(\.name) == ["A", "b"])
    }

    @Test("removing frees the directory; one that is left by a crash is found")
    func removal() async throws {
        let rig = try Rig()
        _ = try await rig.service.prepare("a", parent: "", labels: [:])
        try await rig.service.remove("a")
        #expect(rig.host.state.withLock { $0.made.isEmpty })
        _ = try await rig.service.prepare("b", parent: "", labels: [:])
        rig.host.state.withLock { $0.made[99] = GateProtocol.SnapshotLike.none }
        #expect(try await rig.service.cleanup() == 1)
        #expect(rig.host.state.withLock { $0.made.keys.sorted() } == [2])
    }

    @Test("when the list of snapshots was lost, no directory of that time is removed or given to another")
    func lostLedger() async throws {
        let old = try Rig()
        _ = try await old.service.prepare("a", parent: "", labels: [:])
        let new = try Rig(firstID: 1000)
        new.host.state.withLock { $0.made = [1: .none, 1001: .none, 5000: .none] }
        #expect(try await new.service.cleanup() == 2)
        #expect(new.host.state.withLock { $0.made.keys.sorted() } == [1])
        #expect(try await new.service.prepare("a", parent: "", labels: [:]).first?.source == "/s/1000/fs")

        // A clock that was set back: never what somebody else wrote.
        new.host.state.withLock { $0.made[1001] = GateProtocol.SnapshotLike.none }
        let error = await #expect(throws: SnapshotError.self) {
            try await new.service.prepare("b", parent: "", labels: [:])
        }
        #expect(error?.code == .unavailable)
        #expect(new.host.state.withLock { $0.made[1001] } != nil)
        #expect(try await new.service.prepare("b", parent: "", labels: [:]).first?.source == "/s/1002/fs")
    }

    @Test("a snapshot whose directory cannot be made is not there, and can be tried again")
    func failedDirectory() async throws {
        let rig = try Rig()
        rig.host.state.withLock { $0.failure = SnapshotError(.unavailable, "no space") }
        await #expect(throws: SnapshotError(.unavailable, "no space")) {
            try await rig.service.prepare("a", parent: "", labels: [:])
        }
        rig.host.state.withLock { $0.failure = nil }
        _ = try await rig.service.prepare("a", parent: "", labels: [:])
    }

    @Test("labels and usage: replaced on commit, changed by mask, counted once")
    func labels() async throws {
        let rig = try Rig()
        _ = try await rig.service.prepare("a", parent: "", labels: ["gone": "1"])
        #expect(try await rig.service.usage("a") == .init(bytes: 4096, inodes: 1))
        try await rig.service.commit("a", as: "A", parent: "", labels: ["x": "1", "y": "2"])
        let committed = try await rig.service.stat("A")
        #expect(committed.labels == ["x": "1", "y": "2"] && committed.kind == .committed && committed.parent == nil)
        #expect(committed.usage == .init(bytes: 4096, inodes: 1))
        let masked = try await rig.service.update("A", labels: ["x": "9", "z": "3"], mask: ["labels.x", "labels.y"])
        #expect(masked.labels == ["x": "9"] && masked.updated > committed.updated)
        #expect(try await rig.service.update("A", labels: ["all": "new"], mask: []).labels == ["all": "new"])
        await #expect(throws: SnapshotError.self) {
            try await rig.service.update("A", labels: [:], mask: ["parent"])
        }
    }

    @Test("what was committed is there after a restart")
    func restart() async throws {
        let directory = try Rig().directory
        let first = try Rig(in: directory)
        _ = try await first.service.prepare("a", parent: "", labels: [:])
        try await first.service.commit("a", as: "A", parent: "", labels: ["k": "v"])
        let second = try Rig(in: directory)
        #expect(second.ledger.condition == .opened)
        #expect(try await second.service.stat("A").labels == ["k": "v"])
        _ = try await second.service.prepare("b", parent: "A", labels: [:])
        #expect(second.host.state.withLock { $0.made } == [2: .snapshot(1)])
    }
}

@Suite("Snapshots of chunkd's images")
struct ImageSnapshotTests {
    @Test("every layer is there already, and all of them are one mount below the container's directory")
    func layers() async throws {
        let rig = try Rig()
        let image = rig.addImage(10)
        let top = try await rig.pull(image.labels)
        #expect(top == "sha256:chain10-2")
        #expect(rig.host.state.withLock { $0.made.isEmpty && $0.mounts.count == 1 })
        let mounts = try await rig.service.prepare("c", parent: top, labels: [:])
        #expect(
            mounts.first?.options == [
                "index=off", "workdir=/s/4/work", "upperdir=/s/4/fs", "lowerdir=/i/0a0a",
            ])
        #expect(rig.host.state.withLock { $0.made } == [4: .image(image.manifest)])
        let view = try await rig.service.view("v", parent: top, labels: [:])
        #expect(view == [SnapshotMount(type: "bind", source: "/i/0a0a", options: ["ro", "rbind"])])
        #expect(try await rig.service.usage("sha256:chain10-0").bytes == 77)
        #expect(try await rig.service.usage(top).bytes == 0)
    }

    @Test("containerd finds the layer by its filter: label and parent")
    func filter() async throws {
        let rig = try Rig()
        _ = try await rig.pull(rig.addImage(10).labels)
        _ = try await rig.pull(rig.addImage(20).labels)
        var found: [String] = []
        try await rig.service.list([
            "labels.\"containerd.io/snapshot.ref\"==sha256:chain10-1,parent==\"sha256:chain10-0\""
        ]) { found += $0.map(\.name) }
        #expect(found == ["sha256:chain10-1"])
        found = []
        try await rig.service.list(["labels.\"containerd.io/snapshot.ref\"==sha256:chain10-0,parent==\"\""]) {
            found += $0.map(\.name)
        }
        #expect(found == ["sha256:chain10-0"])
        found = []
        try await rig.service.list([]) { found += $0.map(\.name) }
        #expect(found.count == 6)
    }

    @Test("an ordinary layer on a chunkd image, and a chunkd layer that does not follow its own, are unpacked")
    func mixed() async throws {
        let rig = try Rig()
        let image = rig.addImage(10)
        let top = try await rig.pull(image.labels)
        _ = try await rig.service.prepare("x", parent: top, labels: [:])
        try await rig.service.commit("x", as: "X", parent: "", labels: [:])
        let above = try await rig.service.prepare("c", parent: "X", labels: [:])
        #expect(above.first?.options.last == "lowerdir=/s/4/fs:/i/0a0a")
        let other = rig.addImage(30)
        let mounts = try await rig.service.prepare("y", parent: "X", labels: other.labels[0])
        #expect(mounts.first?.type == "overlay")
        await #expect(throws: SnapshotError.self) {
            try await rig.service.prepare("z", parent: "nothing", labels: other.labels[1])
        }
    }

    @Test("the image goes with its last snapshot, not before, and pulling again has it back")
    func release() async throws {
        let rig = try Rig()
        let image = rig.addImage(10)
        let top = try await rig.pull(image.labels)
        #expect(try await rig.pull(image.labels) == top, "a second pull finds all layers")
        for number in [2, 1] { try await rig.service.remove("sha256:chain10-\(number)") }
        #expect(rig.host.state.withLock { $0.released.isEmpty })
        try await rig.service.remove("sha256:chain10-0")
        #expect(rig.host.state.withLock { $0.released.map(\.manifest) } == [image.manifest])
        #expect(try await rig.pull(image.labels) == top)
    }

    @Test("when nobody can say what an image is, or it cannot be mounted, containerd goes on without us")
    func undecided() async throws {
        let rig = try Rig()
        let image = rig.addImage(10)
        rig.host.state.withLock { $0.failure = SnapshotError(.unavailable, "registry away") }
        await #expect(throws: SnapshotError(.unavailable, "registry away")) {
            try await rig.service.prepare("a", parent: "", labels: image.labels[0])
        }
        #expect(rig.failures.undecided.withLock { $0 } == 1)
        rig.host.state.withLock { state in
            state.failure = nil
            state.images = [:]
        }
        #expect(try await rig.pull(image.labels) == "prepared")
    }

    @Test("the ledger names the containers on an image, however many layers lie between, and nobody else's")
    func containersOnAnImage() async throws {
        let rig = try Rig()
        let (image, other) = (rig.addImage(10), rig.addImage(30))
        let (top, otherTop) = (try await rig.pull(image.labels), try await rig.pull(other.labels))
        func names(_ limit: Int = 10) async throws -> [String] {
            let found = try await rig.ledger.containers(on: image.manifest, limit: limit)
            return found.names + ["\(found.count)"]
        }
        #expect(try await names() == ["0"], "an image that is only pulled has no container")
        _ = try await rig.service.prepare("k8s.io/1/a", parent: top, labels: [:])
        _ = try await rig.service.prepare("k8s.io/2/b", parent: otherTop, labels: [:])
        _ = try await rig.service.view("k8s.io/3/c", parent: top, labels: [:])
        // A layer made on top of the image, and a container of that.
        _ = try await rig.service.prepare("k8s.io/4/layer", parent: top, labels: [:])
        try await rig.service.commit("k8s.io/4/layer", as: "layer", parent: top, labels: [:])
        _ = try await rig.service.prepare("k8s.io/5/d", parent: "layer", labels: [:])
        #expect(try await names() == ["k8s.io/1/a", "k8s.io/3/c", "k8s.io/5/d", "3"])
        #expect(try await names(1) == ["k8s.io/1/a", "3"])
        for name in ["k8s.io/1/a", "k8s.io/3/c", "k8s.io/5/d"] { try await rig.service.remove(name) }
        #expect(try await names() == ["0"])
    }
}
