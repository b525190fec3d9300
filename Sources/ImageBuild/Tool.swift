internal import LinuxSystem

/// Runs the programs that building rests on. Blocks the calling thread: only from `onThread`.
enum Tool {
    /// Runs a program to its end; its output is shown when it fails. There is no deadline (a tree may be large), but
    /// cancelling ends it.
    ///
    /// - Parameter package: the Debian package that has it, for the error.
    static func run(
        _ name: String, _ arguments: [String], package: String, _ cancellation: Cancellation
    ) throws(ImageBuildError) {
        try cancellation.check()
        guard let path = Program.find(name) else {
            throw ImageBuildError(.tool, "\(name) is not installed; it is in the Debian package \(package)")
        }
        let outcome: Program.Outcome
        do throws(SystemError) {
            outcome = try Program.run(
                path, arguments, started: { cancellation.add($0) }, ended: { cancellation.remove($0) })
        } catch { throw ImageBuildError(.tool, "cannot start \(path)", cause: error) }
        try cancellation.check()
        guard outcome.status == 0 else {
            throw ImageBuildError(.tool, "\(name) \(outcome.how): \(outcome.output)")
        }
    }
}
