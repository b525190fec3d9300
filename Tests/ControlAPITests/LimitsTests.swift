import ControlAPI
import Testing

@Suite struct LimitsTests {
    private func call(_ method: String, _ body: String) throws -> ControlCall {
        try ControlCall(method: method, path: "/v1/limits", body: Array(body.utf8))
    }

    @Test func aRequestNamesWhatItChanges() throws {
        var request = LimitsRequest()
        request.registryBytesPerSecond = 0
        request.uploadPerPeerBytesPerSecond = .max
        let body = try ControlJSON.encode(request)
        #expect(
            String(decoding: body, as: UTF8.self)
                == #"{"apiVersion":"chunkd/v1","registryBytesPerSecond":0,"#
                + #""uploadPerPeerBytesPerSecond":18446744073709551615}"#)
        #expect(try ControlCall(method: "POST", path: "/v1/limits", body: body) == .limits(request))
        #expect(!request.isEmpty)
    }

    @Test func gettingIsChangingNothing() throws {
        #expect(try call("GET", "") == .limits(LimitsRequest()))
        #expect(LimitsRequest().isEmpty)
    }

    @Test func whatIsLeftOutStaysAndZeroIsNone() {
        var limits = LimitsReply()
        limits.downloadBytesPerSecond = 1
        limits.prefetchBytesPerSecond = 2
        limits.uploadBytesPerSecond = 3
        var request = LimitsRequest()
        request.downloadBytesPerSecond = 0
        request.registryBytesPerSecond = 10
        request.uploadPerPeerBytesPerSecond = 11
        limits.apply(request)
        var expected = LimitsReply()
        expected.registryBytesPerSecond = 10
        expected.prefetchBytesPerSecond = 2
        expected.uploadBytesPerSecond = 3
        expected.uploadPerPeerBytesPerSecond = 11
        #expect(limits == expected)
        limits.apply(LimitsRequest())
        #expect(limits == expected)
    }

    @Test(arguments: [
        (#"{"downloadBytesPerSecond":-1}"#, "a number that does not fit"),
        (#"{"registryBytesPerSecond":"50MiB/s"}"#, "registryBytesPerSecond"),
        (#"{"uploadBytesPerSecond":1.5}"#, "a number that does not fit"),
        (#"{"apiVersion":"chunkd/v9"}"#, "expected chunkd/v1, found chunkd/v9"),
        ("", "not JSON"),
    ])
    func whatIsNoRateIsRefused(body: String, text: String) {
        let error = #expect(throws: ControlError.self) { try call("POST", body) }
        #expect(error?.code == .invalidRequest)
        #expect(error?.message.contains(text) == true, "\(error?.message ?? "no error")")
    }
}
