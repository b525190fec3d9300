import Catalogue
import ChunkModel
import Settings
import Synchronization
import TestSupport
import Testing

@testable import Agent

@Suite struct SharingPolicyTests {
    @Test func theStrictestListThatNamesARepositoryCounts() {
        let policy = SharingPolicy(
            publicImages: "r.example/open/*, r.example/one", keyedImages: "r.example/open/half/*",
            unshared: "r.example/open/half/own")
        #expect(policy.policy(of: "r.example/open/a") == .publicImage)
        #expect(policy.policy(of: "r.example/one") == .publicImage)
        #expect(policy.policy(of: "r.example/one/more") == .byCredentials)
        #expect(policy.policy(of: "r.example/open/half/a") == .manifest)
        #expect(policy.policy(of: "r.example/open/half/own") == .none)
        #expect(policy.policy(of: "other.example/open/a") == .byCredentials)
    }
}

@Suite struct WaitingTests {
    private func goal(_ chunk: Int, _ seed: UInt8 = 1) throws -> (Waiting.Goal, BlobKey) {
        let digest = try #require(Digest(rawBytes: [UInt8](repeating: seed, count: 32)))
        let key = BlobKey(blob: digest, index: digest)
        return (.chunk(key, chunk), key)
    }

    @Test func eachWaiterIsTakenOnce() throws {
        var waiting = Waiting()
        let (goal, _) = try goal(1)
        let resumed = Mutex<[Int]>([])
        let first = try #require(waiting.add(goal) { resumed.withLock { $0.append(1) } })
        _ = waiting.add(goal) { resumed.withLock { $0.append(2) } }
        waiting.take(goal, first)?.resume()
        #expect(waiting.take(goal, first).map(\.id) == nil)
        for waiter in waiting.take(goal) { waiter.resume() }
        #expect(waiting.take(goal).isEmpty)
        #expect(resumed.withLock { $0 } == [1, 2])
    }

    @Test func whatIsGoneLetsItsWaitersGoAndNoOthers() throws {
        var waiting = Waiting()
        let (goal, key) = try goal(1)
        let (other, _) = try self.goal(1, 2)
        for goal in [goal, goal, other] { _ = waiting.add(goal) {} }
        #expect(waiting.take([key]).count == 2)
        #expect(waiting.take(other).count == 1)
    }

    @Test func thereIsRoomForSoManyAndNoMore() throws {
        var waiting = Waiting()
        let (goal, _) = try goal(1)
        for _ in 0..<Waiting.maxWaiters { #expect(waiting.add(goal) {} != nil) }
        #expect(waiting.add(goal) {} == nil)
        _ = waiting.take(goal)
        #expect(waiting.add(goal) {} != nil)
    }
}

@Suite struct SeedTests {
    @Test func listAndFileAreRead() throws {
        let directory = try TemporaryDirectory()
        var settings = AgentSettings.defaults.cluster
        settings.seeds = "a.example, 10.0.0.1:4710,b.example:7"
        #expect(ClusterNode.seedNames(settings).names == ["a.example", "10.0.0.1:4710", "b.example:7"])
        settings.seedsFile = try directory.write("seeds", Array("# nodes\n c.example \r\n\n10.0.0.2:1\n".utf8))
        #expect(ClusterNode.seedNames(settings).names.suffix(2) == ["c.example", "10.0.0.2:1"])
        settings.seedsFile = "/nonexistent"
        let (names, problems) = ClusterNode.seedNames(settings)
        #expect(names.count == 3, "the list counts although the file is not there yet")
        #expect(problems.map(\.reason) == [.file] && problems.first?.detail.contains("/nonexistent") == true)
    }

    @Test func namesGiveAllTheirAddressesAndNonsenseNone() {
        #expect(ClusterNode.resolve("10.0.0.1:4711") == ["10.0.0.1:4711"])
        #expect(ClusterNode.resolve("10.0.0.1") == ["10.0.0.1:4710"])
        #expect(ClusterNode.resolve("localhost:7").contains("127.0.0.1:7"))
        for text in ["", ":", "a.example:port", "a.example:70000", "no-such-host.invalid:1"] {
            #expect(ClusterNode.resolve(text).isEmpty, "\(text)")
        }
    }
}
