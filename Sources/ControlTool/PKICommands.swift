import ArgumentParser
import ChunkModel
import DevelopmentPKI
import Glibc
import LinuxSystem
import PeerTransport

struct PKICommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pki", abstract: "Make and look at the certificates that nodes know each other by.",
        discussion: """
            EXAMPLES:
              chunkctl pki init ./pki --trust-domain cluster.local
              chunkctl pki issue ./pki node-1 --out /etc/chunkd/pki
              chunkctl pki inspect /etc/chunkd/pki/node-1.crt --ca ./pki/ca.crt

            For development: the CA's key lies in a file. Production has SPIRE or cert-manager. Needs openssl.
            """,
        subcommands: [PKIInitCommand.self, PKIIssueCommand.self, PKIInspectCommand.self])
}

/// What the PKI commands share: no daemon is asked, so there is neither socket nor configuration.
struct PKIOptions: ParsableArguments {
    @Option(name: [.customShort("o"), .long], help: "How the result is printed: table or json.")
    var output = OutputFormat.table
}

struct PKIInitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Make a development CA: DIR/ca.crt and DIR/ca.key.",
        discussion: """
            EXAMPLES:
              chunkctl pki init ./pki --trust-domain cluster.local
              chunkctl pki init ./pki --trust-domain cluster.local --days 30 --force
            """)

    @Argument(help: "Directory for the CA; made when it is not there.")
    var directory: String

    @Option(help: "Trust domain of the cluster: spiffe://TRUST-DOMAIN/chunkd/node/NAME.")
    var trustDomain: String

    @Option(help: "Days the CA is valid.")
    var days = 3650

    @Flag(help: "Replace a CA that is there already. Its certificates are worth nothing then.")
    var force = false

    @OptionGroup var options: PKIOptions

    func validate() throws { try validateDays(days) }

    func run() async throws {
        guard let domain = TrustDomain(trustDomain) else {
            throw ToolError(
                "invalid_argument", "--trust-domain: expected 1 to 255 of a-z 0-9 . - _, found \(trustDomain)",
                exit: .usage)
        }
        let (directory, days, force) = (directory, days, force)
        let made = try await onPKIThread {
            let authority = try DevelopmentAuthority.create(
                directory: directory, trustDomain: domain, validity: .days(days), force: force)
            return try CertificateReport.read(authority.bundle)[0]
        }
        let result = PKIResult(
            certificate: directory + "/ca.crt", key: directory + "/ca.key", report: made)
        try Console.show(Versioned(result), as: options.output) { result.text }
    }
}

struct PKIIssueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "issue", abstract: "Issue a node's certificate and key: NAME.crt and NAME.key.",
        discussion: """
            EXAMPLES:
              chunkctl pki issue ./pki node-1
              chunkctl pki issue ./pki node-1 --out /etc/chunkd/pki --days 30 --force

            The key is written first and each file whole: a running chunkd takes the new pair up by itself.
            """)

    @Argument(help: "Directory of the CA, from chunkctl pki init.")
    var directory: String

    @Argument(help: "Name of the node: 1 to 63 of a-z 0-9 . -")
    var name: String

    @Option(help: ArgumentHelp("Directory for the files (default: the CA's).", valueName: "path"))
    var out: String?

    @Option(help: "Days the certificate is valid.")
    var days = 365

    @Flag(help: "Replace files that are there already.")
    var force = false

    @OptionGroup var options: PKIOptions

    func validate() throws { try validateDays(days) }

    func run() async throws {
        guard let node = NodeName(name) else {
            throw ToolError(
                "invalid_argument",
                "NAME: expected 1 to 63 of a-z 0-9 . - with a letter or digit at both ends, found \(name)", exit: .usage
            )
        }
        let (directory, days, force, out) = (directory, days, force, out)
        let result = try await onPKIThread {
            let authority = try DevelopmentAuthority(directory: directory)
            let files = try authority.issue(node, validity: .days(days), output: out, force: force)
            let report = try CertificateReport.read(files.certificate, bundle: authority.bundle)[0]
            return PKIResult(certificate: files.certificate, key: files.key, report: report)
        }
        try Console.show(Versioned(result), as: options.output) { result.text }
    }
}

struct PKIInspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show what certificates say, and what a peer would refuse them for.",
        discussion: """
            EXAMPLES:
              chunkctl pki inspect /etc/chunkd/pki/node-1.crt
              chunkctl pki inspect node-1.crt --ca ca.crt -o json | jq .certificates[0].problems

            Exit status 1 when a certificate has problems.
            """)

    @Argument(help: "Files with certificates in PEM; in each the node's own comes first.")
    var files: [String]

    @Option(help: ArgumentHelp("Bundle of the cluster's authorities, to verify against.", valueName: "path"))
    var ca: String?

    @OptionGroup var options: PKIOptions

    func run() async throws {
        let (files, ca) = (files, ca)
        let reports = try await onPKIThread {
            try files.flatMap { file in
                try CertificateReport.read(file, bundle: ca).map { PKIResult(certificate: file, key: nil, report: $0) }
            }
        }
        try Console.show(Versioned(PKIReports(certificates: reports)), as: options.output) {
            reports.map(\.text).joined(separator: "\n\n")
        }
        if reports.contains(where: { !$0.report.problems.isEmpty }) { throw ExitCode(ToolError.Exit.failed.rawValue) }
    }
}

/// A certificate with where it lies.
private struct PKIResult: Sendable, Encodable {
    let certificate: String
    /// The key's file, when it was made just now.
    let key: String?
    let report: CertificateReport

    private enum CodingKeys: String, CodingKey { case certificateFile, keyFile }

    func encode(to encoder: any Encoder) throws {
        try report.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(certificate, forKey: .certificateFile)
        try container.encodeIfPresent(key, forKey: .keyFile)
    }

    var text: String {
        var pairs = [("certificate", certificate)]
        if let key { pairs.append(("key", key)) }
        if let name = report.name { pairs.append(("node", name)) }
        if let domain = report.trustDomain { pairs.append(("trust domain", domain)) }
        if report.name == nil, let uri = report.uri { pairs.append(("URI", uri)) }
        pairs += [
            ("kind", "\(report.kind), \(report.key)"), ("subject", report.subject), ("issuer", report.issuer),
            ("valid", "\(Self.date(report.notBefore)) to \(Self.date(report.notAfter))"),
            ("SHA-256", report.fingerprint),
            ("problems", report.problems.isEmpty ? "none" : report.problems.joined(separator: "; ")),
        ]
        return Table.pairs(pairs)
    }

    /// `2026-01-31 12:00:00Z`
    private static func date(_ seconds: Int64) -> String {
        var (time, fields) = (time_t(seconds), tm())
        gmtime_r(&time, &fields)
        let parts = [fields.tm_mon + 1, fields.tm_mday, fields.tm_hour, fields.tm_min, fields.tm_sec]
            .map { $0 < 10 ? "0\($0)" : "\($0)" }
        return "\(fields.tm_year + 1900)-\(parts[0])-\(parts[1]) \(parts[2]):\(parts[3]):\(parts[4])Z"
    }
}

private struct PKIReports: Encodable {
    let certificates: [PKIResult]
}

private func validateDays(_ days: Int) throws {
    guard (1...36_500).contains(days) else { throw ValidationError("--days: expected 1 to 36500, found \(days)") }
}

/// Runs what starts programs and reads files on a thread of its own; errors come out as the tool's.
private func onPKIThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    do {
        return try await withCheckedThrowingContinuation { continuation in
            do {
                try Thread.start("pki") { continuation.resume(with: Result { try body() }) }
            } catch { continuation.resume(throwing: error) }
        }
    } catch let error as PKIError {
        throw ToolError(error.reason, error.message, exit: error.code == .invalidArgument ? .usage : .failed)
    } catch let error as IdentityError {
        throw ToolError(error.reason.rawValue, error.message)
    }
}
