/// What a simulation found out.
package struct SimulationReport: Codable, Sendable, Equatable {
    /// One figure, with the target it is held against when there is one.
    package struct Figure: Codable, Sendable, Equatable {
        package let name: String
        package let value: Double
        package let unit: String
        /// The largest value that is good.
        package let target: Double?

        package var isMet: Bool { target.map { value <= $0 } ?? true }
    }

    package let simulation: String
    package let scenario: String
    package let nodes: Int
    package let seed: UInt64
    package private(set) var figures: [Figure] = []
    /// What a checker found wrong; empty when all is well.
    package private(set) var violations: [String] = []

    package init(simulation: String, scenario: String, nodes: Int, seed: UInt64) {
        self.simulation = simulation
        self.scenario = scenario
        self.nodes = nodes
        self.seed = seed
    }

    /// Whether no checker complains and all targets are met.
    package var isGood: Bool { violations.isEmpty && figures.allSatisfy(\.isMet) }

    package mutating func add(_ name: String, _ value: Double, _ unit: String, target: Double? = nil) {
        figures.append(Figure(name: name, value: value, unit: unit, target: target))
    }

    package mutating func violate(_ what: String) { violations.append(what) }

    /// The figure of that name.
    package subscript(name: String) -> Double? { figures.first { $0.name == name }?.value }

    /// A table for people.
    package var text: String {
        var lines = ["\(simulation) \(scenario): \(nodes) nodes, seed \(seed)"]
        for figure in figures {
            let target =
                figure.target.map { "  (target ≤ \(Self.format($0)), \(figure.isMet ? "met" : "MISSED"))" } ?? ""
            lines.append("  \(figure.name): \(Self.format(figure.value)) \(figure.unit)\(target)")
        }
        lines += violations.map { "  VIOLATION: \($0)" }
        return lines.joined(separator: "\n")
    }

    /// At most three digits behind the point.
    private static func format(_ value: Double) -> String {
        let thousandths = (value * 1000).rounded() / 1000
        return thousandths == thousandths.rounded() && abs(thousandths) < 1e15
            ? "\(Int64(thousandths))" : "\(thousandths)"
    }
}

extension Duration {
    /// Seconds, for figures.
    package var inSeconds: Double { Double(nanoseconds) / 1e9 }
}
