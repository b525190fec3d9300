import Glibc

/// A private CA with one server and one client certificate, made by the openssl tool.
package final class TestPKI: Sendable {
    package let caFile: String
    package let certificateFile: String
    package let keyFile: String
    package let clientCertificateFile: String
    package let clientKeyFile: String
    private let directory: TemporaryDirectory

    /// Makes the files in `directory/tls`; the server's names are 127.0.0.1, ::1, localhost and
    /// registry.test.
    package init(in directory: TemporaryDirectory) throws {
        self.directory = directory
        let base = directory.path + "/tls"
        try directory.write("tls/server.ext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost,DNS:registry.test\n")
        try directory.write("tls/client.ext", "extendedKeyUsage=clientAuth\n")
        func openssl(_ arguments: String...) throws { try Self.openssl(arguments, in: base) }
        // RSA, since the token of docker-registry is signed with the same key by `openssl dgst -sign`.
        try openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chunkd test CA", "-keyout",
            "ca.key", "-out", "ca.crt")
        for name in ["server", "client"] { try Self.issue(name, days: 2, in: base) }
        (caFile, certificateFile, keyFile) = (base + "/ca.crt", base + "/server.crt", base + "/server.key")
        (clientCertificateFile, clientKeyFile) = (base + "/client.crt", base + "/client.key")
    }

    /// Another certificate of the CA for a server with these names (`DNS:…`, `IP:…`), valid from now for so many days;
    /// one of -1 days has expired. The paths of certificate and key.
    package func issue(_ name: String, names: [String], days: Int = 2) throws -> (certificate: String, key: String) {
        try directory.write("tls/\(name).ext", "subjectAltName=\(names.joined(separator: ","))\n")
        let base = directory.path + "/tls"
        try Self.issue(name, days: days, in: base)
        return ("\(base)/\(name).crt", "\(base)/\(name).key")
    }

    /// Makes NAME.key and NAME.crt, with the extensions in NAME.ext.
    private static func issue(_ name: String, days: Int, in base: String) throws {
        let (key, request, certificate) = ("\(name).key", "\(name).csr", "\(name).crt")
        try openssl(
            [
                "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=chunkd test \(name)", "-keyout", key, "-out",
                request,
            ], in: base)
        try openssl(
            [
                "x509", "-req", "-in", request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                "\(days)", "-extfile", "\(name).ext", "-out", certificate,
            ], in: base)
    }

    private static func openssl(_ arguments: [String], in directory: String) throws {
        try ProcessFixture.run(["openssl"] + arguments, directory: directory)
    }
}

/// Debian's docker-registry on 127.0.0.1, with its storage in a temporary directory.
package final class RegistryFixture: Sendable {
    package enum Auth: Sendable {
        case none
        /// Basic authentication by htpasswd.
        case password
        /// Bearer tokens of a token server on the same address, which issues tokens of that many seconds.
        case token(lifetimeSeconds: Int)
    }

    /// `127.0.0.1:PORT`.
    package let host: String
    package let port: UInt16
    /// The CA of the registry's certificate; nil without TLS.
    package let caFile: String?
    package let username = "u"
    package let password = "p"
    /// Counts of the token server, see `tokenRequests`.
    private let tokenServer: PythonServer?
    private let process: ProcessFixture
    private let directory: TemporaryDirectory

    /// Starts a registry and waits until it listens.
    package static func start(tls: Bool = false, auth: Auth = .none) throws -> RegistryFixture {
        var last: any Error = FixtureError("registry not started")
        for _ in 0..<3 {
            do { return try RegistryFixture(tls: tls, auth: auth) } catch { last = error }
        }
        throw last
    }

    private init(tls: Bool, auth: Auth) throws {
        directory = try TemporaryDirectory(prefix: "chunkd-registry")
        port = try Ports.free()
        host = "127.0.0.1:\(port)"
        var needsPKI = tls
        if case .token = auth { needsPKI = true }
        let pki = needsPKI ? try TestPKI(in: directory) : nil
        caFile = tls ? pki?.caFile : nil
        var config = """
            version: 0.1
            log: {level: info, accesslog: {disabled: false}}
            storage:
              filesystem: {rootdirectory: \(directory.path)/data}
              delete: {enabled: true}
            http:
              addr: \(host)
              secret: chunkd-test

            """
        if tls, let pki { config += "  tls: {certificate: \(pki.certificateFile), key: \(pki.keyFile)}\n" }
        var server: PythonServer?
        switch auth {
        case .none: break
        case .password:
            // -B: docker-registry takes bcrypt only; cost 4 keeps the tests fast.
            let line = try ProcessFixture.run(["htpasswd", "-nbB", "-C", "4", "u", "p"])
            try directory.write("htpasswd", line)
            config += "auth:\n  htpasswd: {realm: chunkd-test, path: \(directory.path)/htpasswd}\n"
        case .token(let lifetime):
            guard let pki else { throw FixtureError("token auth without keys") }
            let tlsArguments = tls ? [pki.certificateFile, pki.keyFile] : []
            server = try PythonServer.start(
                tokenServerScript, arguments: ["\(lifetime)", pki.certificateFile, pki.keyFile] + tlsArguments)
            let realm = "\(tls ? "https" : "http")://127.0.0.1:\(server?.port ?? 0)/token"
            config += """
                auth:
                  token:
                    realm: "\(realm)"
                    service: chunkd-registry
                    issuer: chunkd-test
                    rootcertbundle: \(pki.certificateFile)

                """
        }
        tokenServer = server
        try directory.write("config.yml", config)
        process = try ProcessFixture(
            ["docker-registry", "serve", directory.path + "/config.yml"], logFile: directory.path + "/log")
        try process.waitForPort(port)
    }

    /// The registry's log with one access line a request.
    package var log: String { process.log }
    /// The token server's log with one line a request.
    package var tokenServerLog: String { tokenServer?.log ?? "" }
    /// Where the registry keeps its data, for tests that damage it.
    package var dataDirectory: String { directory.path + "/data" }
    /// The token server's port, 0 without one.
    package var tokenServerPort: UInt16 { tokenServer?.port ?? 0 }

    package func stop() {
        process.stop()
        tokenServer?.stop()
    }

    /// Stops it in its tracks: connections stay open and are taken, requests wait.
    package func pause() { process.signal(SIGSTOP) }
    /// Lets it go on.
    package func resume() { process.signal(SIGCONT) }
}

/// A small HTTP server in python, for answers that no proper server gives.
package final class PythonServer: Sendable {
    package let port: UInt16
    package var host: String { "127.0.0.1:\(port)" }
    private let process: ProcessFixture
    private let directory: TemporaryDirectory

    /// Runs a script with PORT as its first argument (a free one, if none is given) and waits until it listens there.
    package static func start(
        _ script: String, arguments: [String] = [], port: UInt16? = nil
    ) throws -> PythonServer {
        var last: any Error = FixtureError("server not started")
        for _ in 0..<3 {
            do { return try PythonServer(script, arguments: arguments, port: port) } catch { last = error }
        }
        throw last
    }

    private init(_ script: String, arguments: [String], port: UInt16?) throws {
        directory = try TemporaryDirectory(prefix: "chunkd-python")
        let port = try port ?? Ports.free()
        self.port = port
        let file = try directory.write("server.py", script)
        process = try ProcessFixture(
            ["python3", "-u", file, "\(port)"] + arguments, directory: directory.path, logFile: directory.path + "/log")
        try process.waitForPort(port)
    }

    /// Everything the script printed.
    package var log: String { process.log }
    package func stop() { process.stop() }
}

/// nginx with a configuration of the test's own.
package final class NginxFixture: Sendable {
    private let process: ProcessFixture
    package let directory: TemporaryDirectory

    /// Starts nginx with `servers` (the text inside `http { }`, `@DIR@` replaced) and waits for `port`.
    package init(port: UInt16, servers: String) throws {
        let directory = try TemporaryDirectory(prefix: "chunkd-nginx")
        self.directory = directory
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map { "\($0)_temp_path \(directory.path)/\($0);" }.joined(separator: " ")
        let config = """
            worker_processes 1; daemon off; user root;
            pid \(directory.path)/pid; error_log \(directory.path)/error.log warn;
            events { worker_connections 512; }
            http { \(temporary) access_log \(directory.path)/access.log;
            proxy_http_version 1.1; proxy_set_header Connection ""; client_max_body_size 0;
            proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
            \(servers.split(separator: "@DIR@", omittingEmptySubsequences: false).joined(separator: directory.path))
            }
            """
        let file = try directory.write("nginx.conf", config)
        process = try ProcessFixture(["nginx", "-p", directory.path, "-c", file], logFile: directory.path + "/log")
        try process.waitForPort(port)
    }

    package var accessLog: String { TemporaryDirectory.text(of: directory.path + "/access.log") }
    package func stop() { process.stop() }
}

/// Issues RS256 tokens with an x5c header (distribution `spec/auth/jwt.md`): full access for u:p, pull for others.
private let tokenServerScript = """
    import base64, http.server, json, ssl, subprocess, sys, time
    from urllib.parse import urlparse, parse_qs
    port, ttl, cert, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    der = subprocess.check_output(["openssl", "x509", "-in", cert, "-outform", "DER"])
    def b64(b): return base64.urlsafe_b64encode(b).rstrip(b"=").decode()
    def token(claims):
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        body = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
        sign = ["openssl", "dgst", "-sha256", "-sign", key]
        return body + "." + b64(subprocess.run(sign, input=body.encode(), capture_output=True, check=True).stdout)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            query = parse_qs(urlparse(self.path).query)
            given = self.headers.get("Authorization", "")
            known = given == "Basic " + base64.b64encode(b"u:p").decode()
            print("TOKEN", "basic" if known else "other" if given else "anonymous", query.get("scope"), flush=True)
            if given and not known:
                self.send_response(401); self.send_header("Content-Length", "0"); self.end_headers(); return
            access = []
            for scope in query.get("scope", []):
                kind, name, actions = scope.split(":", 2)
                access.append({"type": kind, "name": name, "actions": actions.split(",") if known else ["pull"]})
            now = int(time.time())
            claims = {"iss": "chunkd-test", "sub": "u", "aud": query.get("service", [""])[0], "exp": now + ttl,
                      "nbf": now - 5, "iat": now, "jti": str(time.time()), "access": access}
            body = json.dumps({"token": token(claims), "expires_in": ttl}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if len(sys.argv) > 5:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[5], sys.argv[6])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
    """
