import Glibc
import LinuxSystem

/// A temporary directory beside what is being made, so that each file is moved into its place whole.
struct Workplace {
    let path: String

    init(in directory: String) throws(PKIError) {
        var template = Array("\(directory)/.pki-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
        }
        guard let made else {
            throw PKIError(.inputOutput, "cannot write to \(directory): \(String(cString: strerror(errno)))")
        }
        path = made
    }

    func at(_ name: String) -> String { path + "/" + name }

    func write(_ name: String, _ text: String) throws(PKIError) {
        do throws(SystemError) {
            try File(path: at(name), flags: O_WRONLY | O_CREAT | O_EXCL).writeAll(Array(text.utf8), at: 0)
        } catch { throw PKIError(.inputOutput, "\(error)") }
    }

    func makeKey(_ name: String) throws(PKIError) {
        try openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", at(name)])
    }

    /// Signs `csr` into `crt`. `openssl ca` and not `x509`: in OpenSSL 3.0 it alone takes both ends of the validity.
    /// Without a certificate of the signer it signs itself.
    func sign(
        key: String, certificate: String?, _ validity: DevelopmentAuthority.Validity
    ) throws(PKIError) {
        try write("index", "")
        try openssl(
            [
                "ca", "-batch", "-notext", "-config", at("conf"), "-in", at("csr"), "-out", at("crt"), "-keyfile", key,
                "-startdate", Self.asn1(validity.from), "-enddate", Self.asn1(validity.to),
            ] + (certificate.map { ["-cert", $0] } ?? ["-selfsign"]))
    }

    func openssl(_ arguments: [String]) throws(PKIError) {
        guard let tool = Program.find("openssl") else {
            throw PKIError(.tool, "openssl is not installed; it is in the Debian package openssl")
        }
        let outcome: Program.Outcome
        do throws(SystemError) { outcome = try Program.run(tool, arguments) } catch {
            throw PKIError(.tool, "\(error)")
        }
        guard outcome.status == 0 else {
            throw PKIError(.tool, "openssl \(arguments[0]) \(outcome.how): \(outcome.output)")
        }
    }

    static func refuse(existing paths: [String]) throws(PKIError) {
        if let path = paths.first(where: { access($0, F_OK) == 0 }) {
            throw PKIError(.exists, "\(path) exists; --force replaces it")
        }
    }

    /// Moves a file to where it belongs.
    func put(_ name: String, as target: String, mode: mode_t, force: Bool) throws(PKIError) {
        let source = at(name)
        // link(2) fails when the target is there, rename(2) replaces it.
        guard chmod(source, mode) == 0, (force ? rename(source, target) : link(source, target)) == 0 else {
            if errno == EEXIST { throw PKIError(.exists, "\(target) exists; --force replaces it") }
            throw PKIError(.inputOutput, "\(target): \(String(cString: strerror(errno)))")
        }
    }

    /// Removes it with all that is in it: what `openssl ca` leaves has names we do not choose.
    func remove() {
        if let tool = Program.find("rm") { _ = try? Program.run(tool, ["-rf", "--", path]) }
    }

    /// `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5.2).
    private static func asn1(_ seconds: Int64) -> String {
        var (time, fields) = (time_t(seconds), tm())
        gmtime_r(&time, &fields)
        let parts = [fields.tm_year + 1900, fields.tm_mon + 1, fields.tm_mday, fields.tm_hour, fields.tm_min]
        return (parts + [fields.tm_sec]).map { $0 < 10 ? "0\($0)" : "\($0)" }.joined() + "Z"
    }
}
