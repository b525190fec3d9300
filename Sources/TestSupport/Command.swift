import Glibc
import LinuxSystem

/// Runs a program to its end and keeps its status and both outputs apart. Blocks the calling thread, never longer than
/// the limit. `ProcessFixture.run` is the short form for programs whose output does not matter.
package struct Command: Sendable {
    /// How a program ended.
    package struct Output: Sendable {
        /// The exit status, or 128 + the signal's number as a shell has it.
        package var status: Int32
        package var text: String
        package var errors: String
    }

    package var program: String
    package var arguments: [String]
    /// Added to the fixture's small environment.
    package var environment: [String: String] = [:]
    /// After this the program is killed.
    package var limit: Duration = .seconds(60)

    package init(_ program: String, _ arguments: [String] = []) {
        self.program = program
        self.arguments = arguments
    }

    /// Runs a program and requires status 0; returns what it printed on standard output.
    @discardableResult
    package static func run(_ program: String, _ arguments: String...) throws -> String {
        try Command(program, arguments).require()
    }

    /// Runs and requires status 0.
    @discardableResult
    package func require() throws -> String {
        let output = try run()
        guard output.status == 0 else {
            throw FixtureError("\(shown): status \(output.status): \((output.errors + output.text).suffix(2000))")
        }
        return output.text
    }

    /// Runs and returns how it ended.
    package func run() throws -> Output {
        let scratch = try TemporaryDirectory(prefix: "chunkd-command")
        let (out, errors) = (scratch.path + "/out", scratch.path + "/errors")
        // The shell parts the two streams and becomes the program.
        let words = ["sh", "-c", "exec \"$@\" >'\(out)' 2>'\(errors)'", "sh", program] + arguments
        let process = try ProcessFixture(words, environment: environment, logFile: scratch.path + "/log")
        guard let status = process.wait(atMost: limit) else {
            throw FixtureError("\(shown): not done after \(limit)")
        }
        return Output(
            status: status, text: TemporaryDirectory.text(of: out),
            errors: TemporaryDirectory.text(of: errors) + process.log)
    }

    private var shown: String { ([program] + arguments).joined(separator: " ") }
}
