import ChunkModel
import ClusterSimulator
import Testing

/// The event loop and the network model, without any protocol.
@Suite struct SimulationLoopTests {
    /// A loop whose messages take exactly ten milliseconds.
    private func exact(_ nodes: Int = 2, seed: UInt64 = 1) -> Simulation<Int> {
        var network = NetworkModel()
        network.minimumLatency = .milliseconds(10)
        network.meanJitter = .zero
        return Simulation(nodes: nodes, network: network, seed: seed)
    }

    /// Everything that happens up to a time, in words.
    private func run(_ simulation: inout Simulation<Int>, until end: Duration) -> [String] {
        var log: [String] = []
        while let occurrence = simulation.next(until: end) {
            let time = simulation.now.nanoseconds / 1_000_000
            switch occurrence {
            case .message(let from, let to, let message): log.append("\(time) \(from)>\(to) \(message)")
            case .wake(let node): log.append("\(time) wake \(node)")
            case .timer(let token): log.append("\(time) timer \(token)")
            }
        }
        return log
    }

    @Test func thingsHappenInTheOrderOfTimeAndThenOfAsking() {
        var simulation = exact()
        simulation.at(.milliseconds(20), token: 1)
        simulation.at(.milliseconds(10), token: 2)
        simulation.send(from: 0, to: 1, bytes: 1, 3)
        simulation.at(.milliseconds(10), token: 4)
        simulation.wake(1, at: .milliseconds(5))
        #expect(
            run(&simulation, until: .milliseconds(15)) == ["5 wake 1", "10 timer 2", "10 0>1 3", "10 timer 4"])
        #expect(simulation.now == .milliseconds(15))
        #expect(run(&simulation, until: .milliseconds(30)) == ["20 timer 1"])
    }

    @Test func manyRandomTimesComeOutSorted() {
        var simulation = exact(seed: 7)
        var times: [Int] = []
        for token in 0..<5_000 {
            let time = Int.random(in: 0..<1_000, using: &simulation.random)
            times.append(time)
            simulation.at(.milliseconds(time), token: UInt64(token))
        }
        let expected = times.enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }
            .map { "\($0.element) timer \($0.offset)" }
        #expect(run(&simulation, until: .seconds(1)) == expected)
    }

    @Test func aWakeUpReplacesTheOneBefore() {
        var simulation = exact()
        simulation.wake(0, at: .milliseconds(50))
        simulation.wake(0, at: .milliseconds(10))
        simulation.wake(0, at: .milliseconds(30))
        simulation.wake(1, at: .milliseconds(20))
        simulation.wake(1, at: nil)
        #expect(run(&simulation, until: .seconds(1)) == ["30 wake 0"])
        simulation.wake(0, at: .milliseconds(1))
        #expect(run(&simulation, until: .seconds(2)) == ["1000 wake 0"])
    }

    @Test func theSameSeedGivesTheSameRun() {
        func log(_ seed: UInt64) -> [String] {
            var simulation = Simulation<Int>(nodes: 3, seed: seed)
            simulation.network.loss = 0.3
            simulation.network.duplication = 0.3
            simulation.network.reordering = 0.3
            for number in 0..<200 { simulation.send(from: number % 3, to: (number + 1) % 3, bytes: 1, number) }
            return run(&simulation, until: .seconds(1))
        }
        #expect(log(5) == log(5))
        #expect(log(5) != log(6))
    }

    @Test func lossAndDuplicationHappenAsOftenAsAsked() {
        var simulation = exact(seed: 3)
        simulation.network.loss = 0.25
        simulation.network.duplication = 0.5
        for number in 0..<20_000 { simulation.send(from: 0, to: 1, bytes: 10, number) }
        let arrived = run(&simulation, until: .seconds(1)).count
        // 20,000 × 0.75 × 1.5 = 22,500; six standard deviations are about 1,000.
        #expect((21_500...23_500).contains(arrived))
        #expect((4_600...5_400).contains(simulation.lostMessages))
        #expect(simulation.traffic(of: 0).sentBytes == 200_000)
        #expect(simulation.traffic(of: 1).receivedMessages == UInt64(arrived))
    }

    @Test func latenciesHaveTheirMeanAndStayInTheirBounds() {
        var simulation = Simulation<Int>(nodes: 2, seed: 9)
        simulation.network.minimumLatency = .milliseconds(1)
        simulation.network.meanJitter = .milliseconds(4)
        simulation.network.maximumLatency = .milliseconds(30)
        for number in 0..<20_000 { simulation.send(from: 0, to: 1, bytes: 1, number) }
        var times: [Double] = []
        while simulation.next(until: .seconds(1)) != nil { times.append(simulation.now.inSeconds * 1000) }
        #expect(times.count == 20_000)
        #expect(times.allSatisfy { (1...30).contains($0) })
        let mean = times.reduce(0, +) / 20_000
        // 1 + 4, less what the bound cuts off (e^-7.25 of it).
        #expect((4.8...5.2).contains(mean))
    }

    @Test func partitionsAndOneWayLossKeepMessagesBack() {
        var simulation = exact(3)
        simulation.setGroup(1, of: 2)
        simulation.setLink(Link(from: 0, to: 1), LinkModel(loss: 1))
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] { simulation.send(from: from, to: to, bytes: 1, 9) }
        #expect(run(&simulation, until: .seconds(1)) == ["10 1>0 9"])
        #expect(simulation.lostMessages == 3)
    }

    @Test func whatIsOnItsWayToANodeThatRestartsIsLost() {
        var simulation = exact()
        simulation.send(from: 0, to: 1, bytes: 1, 1)
        simulation.wake(1, at: .milliseconds(5))
        simulation.stop(1)
        simulation.send(from: 0, to: 1, bytes: 1, 2)
        simulation.start(1)
        simulation.send(from: 0, to: 1, bytes: 1, 3)
        simulation.wake(1, at: .milliseconds(7))
        #expect(run(&simulation, until: .seconds(1)) == ["7 wake 1", "10 0>1 3"])
    }

    @Test func bandwidthQueuesMessagesAtBothEnds() {
        var simulation = exact(3)
        // 1,000 bytes at 10 kB/s are 100 ms; two to one receiver of 5 kB/s are 200 ms each.
        simulation.setBandwidth(up: 10_000, down: nil, of: 0)
        simulation.send(from: 0, to: 1, bytes: 1_000, 1)
        simulation.send(from: 0, to: 1, bytes: 1_000, 2)
        #expect(run(&simulation, until: .seconds(1)) == ["110 0>1 1", "210 0>1 2"])
        simulation.setBandwidth(up: nil, down: 5_000, of: 2)
        simulation.send(from: 0, to: 2, bytes: 1_000, 3)
        simulation.send(from: 1, to: 2, bytes: 1_000, 4)
        #expect(run(&simulation, until: .seconds(2)) == ["1210 0>2 3", "1410 1>2 4"])
        simulation.setLink(Link(from: 1, to: 0), LinkModel(bytesPerSecond: 2_000))
        simulation.send(from: 1, to: 0, bytes: 1_000, 5)
        #expect(run(&simulation, until: .seconds(3)) == ["2510 1>0 5"])
    }

    @Test func aStallHoldsEverythingBackAndKeepsItsOrder() {
        var simulation = exact(2, seed: 11)
        simulation.setStalls(
            Stalls(running: .seconds(1), stalled: .seconds(1), longest: .seconds(2)), of: 1)
        var sent: [String] = []
        for number in 0..<500 {
            simulation.at(.milliseconds(number * 20), token: UInt64(number))
        }
        var arrived: [(time: Double, number: Int)] = []
        while let occurrence = simulation.next(until: .seconds(20)) {
            switch occurrence {
            case .timer(let token):
                simulation.send(from: 0, to: 1, bytes: 1, Int(token))
                sent.append("\(token)")
            case .message(_, _, let number): arrived.append((simulation.now.inSeconds, number))
            case .wake: break
            }
        }
        #expect(arrived.map(\.number) == Array(0..<500))
        let delays = arrived.map { $0.time - Double($0.number) * 0.02 }
        #expect(delays.contains { $0 > 0.3 })
        #expect(delays.contains { $0 < 0.011 })
        #expect(delays.allSatisfy { $0 < 2.02 })
    }
}
