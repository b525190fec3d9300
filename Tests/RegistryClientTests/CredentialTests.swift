import Glibc
import HTTPTransfer
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

@Suite struct CredentialTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    func lookup(
        _ key: String, config: String? = nil, hosts: [String: HostConfiguration] = [:], perRegistry: Bool = false,
        timeout: Duration = .seconds(5)
    ) throws -> RegistryCredential? {
        let path = try config.map { try directory.write("config.json", $0) }
        let store = CredentialStore(
            configuration: RegistryConfiguration(
                hosts: hosts, dockerConfigPath: path,
                registriesDirectory: perRegistry ? directory.path + "/registries.d" : nil,
                credentialHelperTimeout: timeout))
        return try store.credential(for: key)
    }

    @Test(arguments: [
        (#"{"auths":{"r.example":{"auth":"dTpwOnE="}}}"#, RegistryCredential.password(username: "u", password: "p:q")),
        (#"{"auths":{"https://r.example/v1/":{"auth":"dTpw"}}}"#, .password(username: "u", password: "p")),
        (
            #"{"auths":{"https://r.example/v1/":{"auth":"eDp5"},"r.example":{"auth":"dTpw"}}}"#,
            .password(username: "u", password: "p")
        ),
        (#"{"auths":{"r.example":{"username":"u","password":"p"}}}"#, .password(username: "u", password: "p")),
        (#"{"auths":{"r.example":{"auth":"dTpw","identitytoken":"id"}}}"#, .identityToken("id")),
        (#"{"auths":{"r.example":{"registrytoken":"rt"}}}"#, .bearer("rt")),
    ])
    func dockerConfigEntriesAreRead(config: String, expected: RegistryCredential) throws {
        #expect(try lookup("r.example", config: config) == expected)
        #expect(try lookup("other.example", config: config) == nil)
        #expect(try lookup("r.example:5000", config: config) == nil)
    }

    @Test func aRegistryIsAnonymousWhenNeitherItNorAMirrorOfItIsShownAnything() async throws {
        func isAnonymous(_ hosts: [String: HostConfiguration] = [:], config: String = "{}") async throws -> Bool {
            let path = try directory.write("config.json", config)
            let client = RegistryClient(
                configuration: RegistryConfiguration(hosts: hosts, dockerConfigPath: path))
            let answer = await client.isAnonymous(try Reference("r.example/a:1"))
            await client.shutDown()
            return answer
        }
        let login = #"{"auths":{"r.example":{"auth":"dTpw"}}}"#
        #expect(try await isAnonymous())
        #expect(try await isAnonymous(["other.example": HostConfiguration(credential: .bearer("t"))]))
        #expect(try await !isAnonymous(config: login))
        #expect(try await !isAnonymous(["r.example": HostConfiguration(clientCertificateFile: "/x.crt")]))
        #expect(
            try await !isAnonymous([
                "r.example": HostConfiguration(mirrors: ["m.example"]),
                "m.example": HostConfiguration(credential: .bearer("t")),
            ]))
        // What cannot be read may hold one.
        #expect(try await !isAnonymous(config: "["))
    }

    @Test func nothingConfiguredIsNoCredential() throws {
        #expect(try lookup("r.example") == nil)
        #expect(try lookup("r.example", config: "{}") == nil)
        #expect(try lookup("r.example", config: #"{"auths":{"r.example":{}},"HttpHeaders":{"a":"b"}}"#) == nil)
    }

    @Test(arguments: [
        "", "[]", "{", #"{"auths":5}"#, #"{"auths":{"r.example":{"auth":"!!"}}}"#,
        #"{"auths":{"r.example":{"auth":"dQ=="}}}"#,
    ])
    func brokenFilesAreErrorsThatDoNotQuoteThem(config: String) throws {
        #expect { try lookup("r.example", config: config) } throws: { error in
            (error as? RegistryError)?.code == .credentials && !"\(error)".contains("dQ==")
        }
    }

    @Test func theConfigurationsOwnCredentialWinsThenTheRegistrysFiles() throws {
        let config = #"{"auths":{"r.example":{"auth":"dTpw"}}}"#
        try directory.write("registries.d/r.example/username", "file\n")
        try directory.write("registries.d/r.example/password", "secret\n")
        try directory.write("registries.d/s.example/auth.json", #"{"auth":"dTpw"}"#)
        try directory.write("registries.d/t.example/auth.json", #"{"auths":{"t.example":{"auth":"dTpw"}}}"#)
        #expect(
            try lookup("r.example", config: config, perRegistry: true)
                == .password(username: "file", password: "secret"))
        #expect(try lookup("s.example", perRegistry: true) == .password(username: "u", password: "p"))
        #expect(try lookup("t.example", perRegistry: true) == .password(username: "u", password: "p"))
        let own = HostConfiguration(credential: .bearer("own"))
        #expect(try lookup("r.example", config: config, hosts: ["r.example": own], perRegistry: true) == .bearer("own"))
    }

    @Test func perRegistryFilesGiveTLS() throws {
        try directory.write("registries.d/r.example:5000/ca.crt", "x")
        try directory.write("registries.d/r.example:5000/client.crt", "x")
        try directory.write("registries.d/r.example:5000/client.key", "x")
        let configuration = RegistryConfiguration(registriesDirectory: directory.path + "/registries.d")
        let security = configuration.security("r.example:5000")
        #expect(security.caFile == directory.path + "/registries.d/r.example:5000/ca.crt")
        #expect(security.clientKeyFile?.hasSuffix("client.key") == true)
        #expect(security.isVerified)
        #expect(configuration.security("r.example").caFile == nil)
    }

    @Test func credentialsAreNotPrinted() {
        let all: [RegistryCredential] = [
            .password(username: "u", password: "hidden"), .identityToken("hidden"), .bearer("hidden"),
        ]
        for credential in all {
            #expect(!"\(credential)".contains("hidden"))
            #expect(!String(reflecting: credential).contains("hidden"))
            #expect(!"\(HostConfiguration(credential: credential))".contains("hidden"))
        }
    }
}

@Suite struct CredentialHelperTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    func run(_ script: String, timeout: Duration = .seconds(5)) throws -> RegistryCredential? {
        try directory.write("docker-credential-chunkdtest", "#!/bin/sh\n" + script, mode: 0o755)
        return try Self.untilNotBusy {
            try CredentialHelper.get(
                "chunkdtest", registry: "r.example:5000", directory: directory.path, timeout: timeout)
        }
    }

    /// A child that another test is just starting may still hold the script open for writing: ETXTBSY (26).
    static func untilNotBusy<T>(_ body: () throws -> T) throws -> T {
        var result: Result<T, any Error> = .failure(FixtureError("not tried"))
        _ = Wait.until(.seconds(5)) {
            result = Result(catching: body)
            if case .failure(let error) = result { return !"\(error)".contains("errno 26") }
            return true
        }
        return try result.get()
    }

    @Test func aHelperIsGivenTheRegistryAndAnswers() throws {
        let answer =
            #"read host; [ "$1" = get ] && echo "{\"ServerURL\":\"x\",\"Username\":\"$host\",\"Secret\":\"s\"}""#
        #expect(try run(answer) == .password(username: "r.example:5000", password: "s"))
        #expect(try run(#"echo '{"Username":"<token>","Secret":"t"}'"#) == .identityToken("t"))
    }

    @Test func noneIsNoErrorAndFailureIs() throws {
        #expect(try run("echo 'credentials not found in native keychain'; exit 1") == nil)
        #expect(throws: RegistryError.self) { try run("echo broken; exit 1") }
        #expect(throws: RegistryError.self) { try run("echo '[]'") }
        #expect(throws: RegistryError.self) { try run("kill -9 $$") }
    }

    @Test func aHelperThatHangsOrFloodsIsKilledInTime() throws {
        let clock = ContinuousClock()
        let start = clock.now
        #expect(throws: RegistryError.self) {
            try run("echo $$ > \(directory.path)/pid; exec sleep 60", timeout: .milliseconds(300))
        }
        #expect(throws: RegistryError.self) { try run("exec yes") }
        #expect(clock.now - start < .seconds(5))
        let pid = try #require(pid_t(TemporaryDirectory.text(of: directory.path + "/pid").filter(\.isNumber)))
        #expect(kill(pid, 0) != 0)
    }

    @Test(arguments: ["", "../x", "a/b", "a b", "a;b", String(repeating: "x", count: 65)])
    func namesThatAreNoNamesAreNotRun(name: String) {
        #expect(throws: RegistryError.self) {
            try CredentialHelper.get(name, registry: "r.example", directory: nil, timeout: .seconds(1))
        }
    }

    @Test func aMissingHelperIsAnError() {
        #expect(throws: RegistryError.self) {
            try CredentialHelper.get("does-not-exist-here", registry: "r.example", directory: nil, timeout: .seconds(1))
        }
    }

    @Test func dockerConfigNamesHelpersAndStore() throws {
        try directory.write(
            "docker-credential-chunkdtest",
            "#!/bin/sh\nread h; echo \"{\\\"Username\\\":\\\"$h\\\",\\\"Secret\\\":\\\"s\\\"}\"\n",
            mode: 0o755)
        let config = try directory.write(
            "config.json",
            #"{"auths":{"b.example":{"auth":"dTpw"},"c.example":{}},"credHelpers":{"a.example":"chunkdtest"},"#
                + #""credsStore":"chunkdtest"}"#
        )
        let store = CredentialStore(
            configuration: RegistryConfiguration(
                dockerConfigPath: config, credentialHelperDirectory: directory.path))
        #expect(
            try Self.untilNotBusy { try store.credential(for: "a.example") }
                == .password(username: "a.example", password: "s"))
        #expect(try store.credential(for: "b.example") == .password(username: "u", password: "p"))
        #expect(try store.credential(for: "c.example") == .password(username: "c.example", password: "s"))
    }
}
