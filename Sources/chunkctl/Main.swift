import ControlTool
import Glibc

@main
enum Main {
    static func main() async {
        let status = await ChunkctlProgram.run(Array(CommandLine.arguments.dropFirst()))
        fflush(nil)
        // Not exit(3): its handlers take OpenSSL apart while the threads of transfers that are over still close their
        // connections, and the process would end with a signal after all was done.
        _exit(status)
    }
}
