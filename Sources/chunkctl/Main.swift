import ControlTool
import Glibc

@main
enum Main {
    static func main() async {
        exit(await ChunkctlProgram.run(Array(CommandLine.arguments.dropFirst())))
    }
}
