import ArgumentParser
import ControlAPI
import Settings

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Check this node and say what to do about what is wrong.",
        discussion: """
            EXAMPLES:
              chunkctl doctor
              chunkctl doctor -o json | jq '.checks[] | select(.status != "ok")'

            Run it as root: some checks need it. Exits 1 when a check fails.
            """)

    @OptionGroup var common: CommonOptions

    func run() async throws {
        let settings = try common.settings()
        var checks = NodeChecks.all(settings: settings)
        checks += await Self.agentChecks(ControlClient(socketPath: settings.controlSocket))
        try Console.show(DoctorReply(checks: checks), as: common.output) { Self.text(checks) }
        if checks.contains(where: { $0.status == .fail }) { throw ExitCode(ToolError.Exit.failed.rawValue) }
    }

    static func agentChecks(_ client: ControlClient) async -> [DoctorCheck] {
        do throws(ControlError) {
            let version = try await client.version()
            let reached = DoctorCheck(name: "chunkd", status: .ok, found: "version \(version.version)")
            return [reached] + (try await client.doctor().checks)
        } catch {
            return [DoctorCheck(name: "chunkd", status: .fail, found: error.message, advice: error.hint)]
        }
    }

    static func text(_ checks: [DoctorCheck]) -> String {
        let rows = checks.map { [$0.status.rawValue, $0.name, $0.found] }
        let table = Table.render(header: ["STATUS", "CHECK", "FOUND"], rows: rows)
        let advice = checks.filter { $0.status != .ok && !$0.advice.isEmpty }.map { "\($0.name): \($0.advice)" }
        return advice.isEmpty ? table : table + "\n\nWhat to do:\n" + advice.map { "  " + $0 }.joined(separator: "\n")
    }
}
