import Gate
import Glibc

@main
enum Chunkgate {
    static func main() { exit(GateProgram.main(CommandLine.arguments)) }
}
