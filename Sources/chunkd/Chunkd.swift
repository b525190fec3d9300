import Agent

@main
enum Chunkd {
    static func main() { AgentCommand.start() }
}
