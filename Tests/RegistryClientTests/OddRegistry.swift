import ChunkModel
import OCISpec
import TestSupport

@testable import RegistryClient

/// A registry whose repository names say how it misbehaves. Every blob is the same 1,000,000 bytes. It prints one
/// line a request: method, path, Range and what is known of Authorization.
enum OddRegistry {
    static let size: UInt64 = 1_000_000
    static let content = (0..<Int(size)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }

    static func start() throws -> PythonServer { try PythonServer.start(script) }

    /// Requests of the log whose line contains `text`.
    static func count(_ server: PythonServer, _ text: String) -> Int {
        server.log.split(separator: "\n").filter { $0.contains(text) }.count
    }

    private static let script = """
        import http.server, json, socket, struct, sys, threading, time
        from urllib.parse import urlparse, parse_qs
        port = int(sys.argv[1])
        SIZE = 1000000
        BODY = bytes((i * 7 + (i >> 8)) & 255 for i in range(SIZE))
        lock = threading.Lock()
        seen = {}
        state = {"token": 1, "sign": 1}
        def times(key):
            with lock:
                seen[key] = seen.get(key, 0) + 1
                return seen[key]
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def log_message(self, *a): pass
            def send(self, status, headers, body=b"", length=True):
                self.send_response(status)
                if length and not any(k == "Content-Length" for k, _ in headers):
                    self.send_header("Content-Length", str(len(body)))
                for k, v in headers: self.send_header(k, v)
                self.end_headers()
                if self.command != "HEAD": self.wfile.write(body)
            def range(self):
                r = self.headers.get("Range")
                if not r: return None
                first, last = r[6:].split("-")
                return int(first), min(int(last), SIZE - 1)
            def part(self, first, last, said=None, headers=[], body=None):
                said = said or "bytes %d-%d/%d" % (first, last, SIZE)
                self.send(206, [("Content-Range", said)] + headers, BODY[first:last + 1] if body is None else body)
            def hang_up(self, reset):
                self.wfile.flush()
                if reset:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_WR) if not reset else self.connection.close()
            def cut(self, first, last, count, reset):
                self.send_response(206)
                self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, SIZE))
                self.send_header("Content-Length", str(last - first + 1))
                self.end_headers()
                self.wfile.write(BODY[first:first + count])
                if reset: self.wfile.flush(); time.sleep(0.05)
                self.hang_up(reset)
            def do_HEAD(self): self.do_GET()
            def do_PUT(self): self.do_GET()
            def do_POST(self): self.do_GET()
            def do_GET(self):
                length = int(self.headers.get("Content-Length", "0"))
                sent = self.rfile.read(length)
                auth = self.headers.get("Authorization")
                print(self.command, self.path, self.headers.get("Range", "-"), auth or "-", flush=True)
                url = urlparse(self.path)
                query = parse_qs(url.query)
                if url.path == "/bump": state[query["what"][0]] += 1; return self.send(200, [])
                if url.path == "/token":
                    time.sleep(0.2)
                    answer = {"token": "t%d" % state["token"], "expires_in": 3600}
                    return self.send(200, [], json.dumps(answer).encode())
                if url.path.startswith("/cdn/"):
                    if auth: return self.send(400, [])
                    if query.get("sign") != ["%d" % state["sign"]]: return self.send(403, [])
                    r = self.range()
                    return self.part(*r) if r else self.send(200, [], BODY)
                parts = url.path.split("/")
                mode = parts[2] if len(parts) > 2 else ""
                if mode.startswith("bearer"):
                    if auth != "Bearer t%d" % state["token"] or mode == "bearer-never":
                        realm = 'Bearer realm="http://127.0.0.1:%d/token",service="s"' % port
                        return self.send(401, [("WWW-Authenticate", realm)], b"{}")
                    mode = "ok"
                if "manifests" in parts: return self.manifest(mode)
                if "tags" in parts: return self.tags(mode, query)
                if "uploads" in parts: return self.upload(mode, query)
                self.blob(mode, url)
            def blob(self, mode, url):
                r = self.range()
                first, last = r if r else (0, SIZE - 1)
                if mode == "ok": return self.part(first, last) if r else self.send(200, [], BODY)
                if mode == "ignore": return self.send(200, [], BODY)
                if mode == "shifted": return self.part(first, last, "bytes %d-%d/%d" % (first + 1, last + 1, SIZE))
                if mode == "no-content-range": return self.send(206, [], BODY[first:last + 1])
                if mode == "contradictory": return self.part(first, last, headers=[("Content-Length", "17")])
                if mode == "total": return self.part(first, last, "bytes %d-%d/%d" % (first, last, SIZE + 1))
                if mode == "multipart":
                    kind = [("Content-Type", "multipart/byteranges; boundary=b")]
                    return self.send(206, kind, b"--b\\r\\n\\r\\nx\\r\\n--b--")
                if mode == "416":
                    return self.send(416, [("Content-Length", str(SIZE)), ("Content-Range", "bytes */%d" % SIZE)])
                if mode == "pieces": return self.part(first, min(last, first + 99999))
                if mode == "halves": return self.cut(first, last, max(100000, (last - first + 1) // 2), False)
                if mode == "reset":
                    return self.cut(first, last, 60000, True) if times("reset") <= 3 else self.part(first, last)
                if mode == "reset-at-once": return self.cut(first, last, 0, False)
                if mode == "no-length":
                    self.send_response(206); self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, SIZE))
                    self.send_header("Connection", "close"); self.end_headers()
                    self.close_connection = True
                    self.wfile.write(BODY[first:last + 1] + b"more than asked for"); return
                if mode == "endless":
                    self.send_response(206 if r else 200)
                    if r: self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, SIZE))
                    self.send_header("Connection", "close"); self.end_headers()
                    self.close_connection = True
                    try:
                        self.wfile.write(BODY[first:last + 1])
                        for _ in range(4000): self.wfile.write(b"z" * 65536)
                    except OSError: pass
                    return
                if mode == "no-length-short":
                    self.send_response(206); self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, SIZE))
                    self.send_header("Connection", "close"); self.end_headers()
                    self.close_connection = True
                    self.wfile.write(BODY[first:first + min(70000, last - first + 1)]); return
                if mode == "trickle":
                    self.send_response(206); self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, SIZE))
                    self.send_header("Content-Length", str(last - first + 1)); self.end_headers()
                    try:
                        for i in range(first, last + 1): self.wfile.write(BODY[i:i + 1]); time.sleep(0.05)
                    except OSError: pass
                    return
                if mode == "wrong-bytes": return self.send(200, [], BODY[:-1] + b"!")
                if mode == "503-twice": return self.send(503, []) if times("503") <= 2 else self.part(first, last)
                if mode == "503": return self.send(503, [("Retry-After", "0")])
                if mode == "429-once":
                    return self.send(429, [("Retry-After", "1")]) if times("429") <= 1 else self.part(first, last)
                if mode == "429-absurd": return self.send(429, [("Retry-After", "99999999999999999999")])
                if mode == "loop": return self.send(307, [("Location", self.path)])
                if mode == "chain":
                    n = int(url.query or "0")
                    if n >= 9: return self.part(first, last)
                    return self.send(307, [("Location", "%s?%d" % (url.path, n + 1))])
                if mode == "metadata": return self.send(307, [("Location", "http://169.254.169.254/latest/meta-data/")])
                if mode == "no-location": return self.send(307, [])
                if mode == "signed":
                    return self.send(307, [("Location", "http://localhost:%d/cdn/x?sign=%d" % (port, state["sign"]))])
                if mode == "signed-stale":
                    return self.send(307, [("Location", "http://localhost:%d/cdn/x?sign=0" % port)])
                words = {"errors": [{"code": "BLOB_UNKNOWN", "message": "no \\x1b[31m such"}]}
                self.send(404, [], json.dumps(words).encode())
            def manifest(self, mode):
                config = {"mediaType": "application/vnd.oci.image.config.v1+json",
                          "digest": "sha256:" + "a" * 64, "size": 1}
                kind = "application/vnd.oci.image.manifest.v1+json"
                good = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": []}).encode()
                kinds = [("Content-Type", kind)]
                if mode == "huge": return self.send(200, kinds, b" " * (4 * 1024 * 1024 + 1))
                if mode == "deep": return self.send(200, kinds, b"[" * 1000000)
                if mode == "html": return self.send(200, [("Content-Type", "text/html")], b"<html>login</html>")
                if mode == "lying-header":
                    return self.send(200, kinds + [("Docker-Content-Digest", "sha256:" + "b" * 64)], good)
                if mode == "traversal":
                    return self.send(200, kinds + [("Docker-Content-Digest", "sha256:../../x")], good)
                if mode == "wrong-type":
                    return self.send(200, [("Content-Type", kind.replace("manifest", "index"))], good)
                if mode == "no-head" and self.command == "HEAD": return self.send(405, [])
                if mode in ("untyped", "no-head"):
                    return self.send(200, [("Content-Type", "application/octet-stream")], good)
                self.send(404, [])
            def tags(self, mode, query):
                start = int(query.get("last", ["0"])[0])
                link = '</v2/%s/tags/list?last=%d>; rel="next"' % (mode, start + 10)
                if mode == "foreign": link = '<http://localhost:%d/v2/x/tags/list>; rel="next"' % port
                more = [("Link", link)] if start < 20 or mode == "endless" else []
                names = ["t%d" % i for i in range(start, start + 10)] + ["../x"]
                self.send(200, more, json.dumps({"name": mode, "tags": names}).encode())
            def upload(self, mode, query):
                if self.command == "PUT": return self.send(201, []) if "digest" in query else self.send(400, [])
                where = {"foreign": "http://localhost:%d/v2/foreign/blobs/uploads/1?s=x" % port, "none": None,
                         "metadata": "http://169.254.169.254/x"}.get(mode, "/v2/%s/blobs/uploads/1?s=x" % mode)
                self.send(202, [("Location", where)] if where else [])
        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True
            def handle_error(self, *a): pass
        Server(("127.0.0.1", port), Handler).serve_forever()
        """
}
