import HTTPTransfer
import Synchronization
import TestSupport
import Testing

@testable import HTTPTransfer

/// `#expect(value == expected)` for values that come from mutating calls, which the macro cannot take apart.
func equal<T: Equatable>(_ value: T, _ expected: T, _ location: SourceLocation = #_sourceLocation) {
    #expect(value == expected, sourceLocation: location)
}

@Suite struct ConnectionBudgetTests {
    let lane = ConnectionBudget.Lane(origin: "http://a", priority: .onDemand)
    let slow = ConnectionBudget.Lane(origin: "http://a", priority: .prefetch)

    @Test func startsInOrderAndNeverMoreThanTheBudget() {
        var budget = ConnectionBudget(limits: TransferLimits(onDemandPerOrigin: 2))
        for id in 1...5 as ClosedRange<UInt64> { equal(budget.enqueue(id, lane), true) }
        equal(budget.start(lane), 1)
        equal(budget.start(lane), 2)
        equal(budget.start(lane), nil)
        budget.finish(lane)
        equal(budget.start(lane), 3)
        equal(budget.start(lane), nil)
        #expect(budget.waitingCount == 2)
    }

    @Test func prioritiesAndOriginsDoNotShareABudget() {
        var budget = ConnectionBudget(limits: TransferLimits(onDemandPerOrigin: 1, prefetchPerOrigin: 1))
        let other = ConnectionBudget.Lane(origin: "http://b", priority: .onDemand)
        for (id, lane) in [(1, slow), (2, slow), (3, lane), (4, other)] as [(UInt64, ConnectionBudget.Lane)] {
            equal(budget.enqueue(id, lane), true)
        }
        equal(budget.start(slow), 1)
        equal(budget.start(slow), nil)
        equal(budget.start(lane), 3)
        equal(budget.start(other), 4)
    }

    @Test func theQueueIsBoundedAndRemovalMakesRoom() {
        var budget = ConnectionBudget(limits: TransferLimits(onDemandPerOrigin: 1, maxQueued: 2))
        equal(budget.enqueue(1, lane), true)
        equal(budget.enqueue(2, lane), true)
        equal(budget.enqueue(3, slow), false)
        equal(budget.remove(1, lane), true)
        equal(budget.remove(1, lane), false)
        equal(budget.enqueue(3, slow), true)
        equal(budget.start(lane), 2)
        equal(budget.remove(2, lane), false)
    }

    @Test func randomUseKeepsItsCountsAndForgetsIdleLanes() {
        let seed = SeededGenerator.seedOfThisRun(environment: [:])
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        var budget = ConnectionBudget(
            limits: TransferLimits(onDemandPerOrigin: 3, prefetchPerOrigin: 2, maxQueued: 100))
        let lanes = ["a", "b"].flatMap { origin in
            TransferPriority.allCases.map { ConnectionBudget.Lane(origin: origin, priority: $0) }
        }
        var waiting: [[UInt64]] = lanes.map { _ in [] }
        var active = lanes.map { _ in 0 }
        for id in 0..<5000 as Range<UInt64> {
            let at = Int.random(in: 0..<lanes.count, using: &generator)
            switch Int.random(in: 0..<4, using: &generator) {
            case 0:
                let isTaken = budget.enqueue(id, lanes[at])
                #expect(isTaken == (waiting.reduce(0) { $0 + $1.count } < 100))
                if isTaken { waiting[at].append(id) }
            case 1:
                let mayStart = active[at] < (lanes[at].priority == .onDemand ? 3 : 2)
                let expected = mayStart ? waiting[at].first : nil
                equal(budget.start(lanes[at]), expected)
                if expected != nil {
                    waiting[at].removeFirst()
                    active[at] += 1
                }
            case 2:
                budget.finish(lanes[at])
                active[at] = max(0, active[at] - 1)
            default:
                guard let victim = waiting[at].randomElement(using: &generator) else { continue }
                equal(budget.remove(victim, lanes[at]), true)
                waiting[at].removeAll { $0 == victim }
            }
            #expect(budget.waitingCount == waiting.reduce(0) { $0 + $1.count })
        }
        for at in lanes.indices {
            for id in waiting[at] { equal(budget.remove(id, lanes[at]), true) }
            for _ in 0..<active[at] { budget.finish(lanes[at]) }
        }
        #expect(budget.isIdle)
    }
}

@Suite struct ExchangeClockTests {
    let timeouts = TransferTimeouts(
        queue: .nanoseconds(100), connect: .nanoseconds(100), firstByte: .nanoseconds(50),
        progressWindow: .nanoseconds(20), progressBytes: 10, total: .nanoseconds(1000))

    @Test func eachPhaseHasItsOwnLimit() {
        var clock = ExchangeClock(timeouts: timeouts, now: 0)
        equal(clock.expired(now: 99), nil)
        equal(clock.expired(now: 100), .queueTimeout)
        clock.started()
        equal(clock.expired(now: 900), nil)
        clock.requestProgressed(now: 200)
        #expect(clock.nextCheck == 250)
        equal(clock.expired(now: 249), nil)
        equal(clock.expired(now: 250), .firstByteTimeout)
        clock.requestProgressed(now: 240)
        equal(clock.expired(now: 250), nil)
        clock.responseProgressed(bytes: 0, now: 260)
        #expect(clock.nextCheck == 280)
        equal(clock.expired(now: 280), .progressTimeout)
        clock.responseProgressed(bytes: 10, now: 279)
        equal(clock.expired(now: 280), nil)
        #expect(clock.nextCheck == 300)
        clock.paused()
        equal(clock.expired(now: 999), nil)
        clock.resumed(now: 500)
        equal(clock.expired(now: 519), nil)
        equal(clock.expired(now: 520), .progressTimeout)
        equal(clock.expired(now: 1000), .totalTimeout)
    }

    @Test func absurdDurationsDoNotOverflow() {
        let absurd = TransferTimeouts(
            queue: .seconds(Int64.max), connect: .seconds(Int64.max), firstByte: .seconds(-5),
            total: .seconds(Int64.max))
        var clock = ExchangeClock(timeouts: absurd, now: .max - 5)
        #expect(clock.nextCheck == .max)
        clock.started()
        clock.requestProgressed(now: 7)
        equal(clock.expired(now: 7), .firstByteTimeout)
        #expect(Duration.seconds(Int64.max).clampedMilliseconds == Int(Int32.max))
    }
}

@Suite(.timeLimit(.minutes(1))) struct ConcurrencyTests {
    @Test func onDemandDoesNotWaitForPrefetch() async throws {
        let server = try OddServer.start()
        let client = TransferClient(limits: TransferLimits(onDemandPerOrigin: 1, prefetchPerOrigin: 1))
        let prefetch = (0..<3).map { _ in
            Task {
                try await client.perform(
                    TransferRequest(url: "http://\(server.host)/silent", priority: .prefetch),
                    sink: .collecting(limit: 10))
            }
        }
        #expect(await Wait.eventually(.seconds(30)) { server.log.contains("/silent") })
        let result = try await client.perform(
            TransferRequest(url: "http://\(server.host)/bytes/5"), sink: .collecting(limit: 10))
        #expect(result.body.count == 5)
        // Of the three only one was ever sent.
        #expect(server.log.split(separator: "\n").filter { $0.contains("/silent") }.count == 1)
        for task in prefetch { task.cancel() }
        for task in prefetch { _ = try? await task.value }
    }

    @Test func manyAtOnceUseNoMoreConnectionsThanTheBudget() async throws {
        let server = try OddServer.start()
        let client = TransferClient(limits: TransferLimits(onDemandPerOrigin: 4))
        try await withThrowingTaskGroup(of: Int.self) { group in
            for number in 0..<200 {
                group.addTask {
                    try await client.perform(
                        TransferRequest(url: "http://\(server.host)/bytes/\(number * 37)"),
                        sink: .collecting(limit: 1 << 16)
                    ).body.count
                }
            }
            var sum = 0
            for try await count in group { sum += count }
            #expect(sum == 37 * 199 * 200 / 2)
        }
        let connections = server.log.split(separator: "\n").filter { $0 == "CONNECT" }.count
        #expect((1...4).contains(connections))
    }

    @Test func waitingForAConnectionIsBounded() async throws {
        let server = try OddServer.start()
        let client = TransferClient(limits: TransferLimits(onDemandPerOrigin: 1))
        let first = Task {
            try await client.perform(
                TransferRequest(url: "http://\(server.host)/silent"), sink: .collecting(limit: 10))
        }
        #expect(await Wait.eventually(.seconds(30)) { server.log.contains("/silent") })
        do throws(TransferError) {
            _ = try await client.perform(
                TransferRequest(
                    url: "http://\(server.host)/bytes/1", timeouts: TransferTimeouts(queue: .milliseconds(100))),
                sink: .collecting(limit: 10))
            Issue.record("two exchanges at once")
        } catch {
            #expect(error.code == .queueTimeout)
        }
        first.cancel()
        _ = try? await first.value
    }
}

@Suite struct ProxySettingsTests {
    let settings = ProxySettings(
        http: "http://p:1", https: "http://p:2",
        noProxy: [".corp.example", "exact.test", "10.0.0.0/8", "192.0.2.7", "ported.test:8443", "[2001:db8::1]"])

    @Test(
        arguments: [
            ("registry.test", true, "http://p:2"), ("registry.test", false, "http://p:1"),
            ("a.corp.example", true, nil),
            ("corp.example", true, nil), ("notcorp.example", true, "http://p:2"), ("EXACT.test", true, nil),
            ("sub.exact.test", true, nil), ("10.1.2.3", true, nil), ("11.1.2.3", true, "http://p:2"),
            ("192.0.2.7", true, nil), ("192.0.2.8", true, "http://p:2"), ("localhost", true, nil),
            ("127.0.0.5", true, nil),
            ("127.evil.test", true, "http://p:2"), ("[::1]", true, nil), ("[2001:db8::1]", true, nil),
            ("ported.test", true, "http://p:2"),
        ] as [(String, Bool, String?)])
    func conventionsOfNoProxyHold(host: String, isHTTPS: Bool, expected: String?) {
        #expect(settings.proxy(forHTTPS: isHTTPS, host: host, port: 443) == expected)
    }

    @Test func portsAndTheStarCount() {
        #expect(settings.proxy(forHTTPS: true, host: "ported.test", port: 8443) == nil)
        let all = ProxySettings(http: "http://p:1", https: "http://p:2", noProxy: ["*"])
        #expect(all.proxy(forHTTPS: true, host: "x.test", port: 1) == nil)
        #expect(ProxySettings().proxy(forHTTPS: true, host: "x.test", port: 1) == nil)
    }
}
