import Gate
import Testing

@Suite struct GateOptionsTests {
    @Test func flagsWinOverVariablesAndBothOverDefaults() {
        let command = GateOptions.parse(
            ["--deadline", "5s", "--shards=8"],
            environment: ["CHUNKD_DEADLINE": "9s", "CHUNKD_STATE_DIR": "/data", "CHUNKD_UNRELATED": "x"])
        var expected = GateOptions()
        expected.deadlineMilliseconds = 5000
        expected.shards = 8
        expected.stateDirectory = "/data"
        #expect(command == .run(expected))
    }

    @Test(arguments: [
        ["--nonsense"], ["--shards", "0"], ["--shards", "x"], ["--deadline", "5"], ["--deadline", "-1s"],
        ["--deadline"],
        ["--read-ahead", "512"], ["--read-ahead", "1KiB"], ["--log-format", "xml"], ["--state-dir", "relative"],
        ["--deadline", "99999999999999999999s"], ["--deadline", "61m"], ["extra"],
    ])
    func whatIsNotUnderstoodIsNamed(_ arguments: [String]) {
        guard case .usage(let message) = GateOptions.parse(arguments, environment: [:]) else {
            Issue.record("\(arguments) was accepted")
            return
        }
        #expect(message.contains(arguments[0].split(separator: "=")[0]))
    }

    @Test func aWrongVariableIsNamed() {
        #expect(
            GateOptions.parse([], environment: ["CHUNKD_SHARDS": "many"])
                == .usage("CHUNKD_SHARDS=many: not understood"))
    }

    @Test func helpAndVersionAreAnswered() {
        #expect(GateOptions.parse(["--help"], environment: [:]) == .help)
        #expect(GateOptions.parse(["--version"], environment: [:]) == .version)
        for flag in ["--state-dir", "--run-dir", "--agent-user", "--shards", "--deadline", "--read-ahead"] {
            #expect(GateOptions.help.contains(flag))
        }
    }
}
