import TestSupport

/// A server that answers by path, correctly or not, one thread a connection. It prints "CONNECT" for each
/// connection that was used and one line for each request.
enum OddServer {
    static func start(unixSocket: String? = nil) throws -> PythonServer {
        try PythonServer.start(script, arguments: unixSocket.map { [$0] } ?? [])
    }

    private static let script = """
        import os, socket, sys, threading, time
        def say(line):  # one write: print gives the text and its end apart, and threads come in between
            os.write(1, (line + "\\n").encode())
        port = int(sys.argv[1])
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        if len(sys.argv) > 2:  # the same over a unix socket
            unix = socket.socket(socket.AF_UNIX); unix.bind(sys.argv[2]); unix.listen(64)
        stop = threading.Event()
        def reply(c, status, headers, body=b""):
            lines = ["HTTP/1.1 " + status] + headers
            c.sendall(("\\r\\n".join(lines) + "\\r\\n\\r\\n").encode() + body)
        def sized(c, body, status="200 OK", extra=[]):
            reply(c, status, ["Content-Length: %d" % len(body)] + extra, body)
        def serve(c):
            f = c.makefile("rb")
            isFirst = True
            if f.peek(1)[:1] == b"\\x16": stop.wait(30); return  # a TLS handshake that is never answered
            while True:
                line = f.readline().decode("latin1").split()
                if len(line) < 3: return
                if isFirst: say("CONNECT"); isFirst = False
                method, path = line[0], line[1]
                headers = {}
                while True:
                    h = f.readline().decode("latin1").rstrip("\\r\\n")
                    if not h: break
                    k, v = h.split(":", 1); headers[k.lower()] = v.strip()
                if path == "/refuse-upload":
                    sized(c, b"no", "401 Unauthorized"); return
                body = f.read(int(headers.get("content-length", "0")))
                say("REQUEST %s %s %d %s" % (method, path, len(body), headers.get("range", "-")))
                if path.startswith("/bytes/"): sized(c, b"x" * int(path.split("/")[2]))
                elif path == "/echo":
                    text = method + " " + str(sorted(headers.items())) + "\\n"
                    sized(c, text.encode() + body)
                elif path == "/head": reply(c, "200 OK", ["Content-Length: 12345"])
                elif path == "/204": reply(c, "204 No Content", [])
                elif path == "/interim":
                    reply(c, "103 Early Hints", ["Link: </x>"]); sized(c, b"final", extra=["X-Final: 1"])
                elif path == "/redirect": sized(c, b"", "307 Temporary Redirect", ["Location: /bytes/5"])
                elif path == "/silent": stop.wait(30); return
                elif path == "/trickle":
                    reply(c, "200 OK", ["Content-Length: 1000000"])
                    while not stop.wait(0.02):
                        try: c.sendall(b"x")
                        except OSError: return
                elif path == "/short": reply(c, "200 OK", ["Content-Length: 1000"], b"y" * 100); return
                elif path == "/reset":
                    reply(c, "200 OK", ["Content-Length: 100000"], b"y" * 5000)
                    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0"); c.close(); return
                elif path == "/garbage": c.sendall(b"SSH-2.0-OpenSSH\\r\\n\\r\\n"); return
                elif path == "/absurd": reply(c, "200 OK", ["Content-Length: 99999999999999999999999"], b"x"); return
                elif path == "/negative": reply(c, "200 OK", ["Content-Length: -5"], b"x"); return
                elif path == "/many-headers": sized(c, b"", extra=["X-%d: y" % i for i in range(500)])
                elif path == "/large-headers": sized(c, b"", extra=["X-%d: %s" % (i, "y" * 4000) for i in range(60)])
                elif path == "/chunked":
                    reply(c, "200 OK", ["Transfer-Encoding: chunked"],
                          b"5\\r\\nhello\\r\\n6\\r\\n world\\r\\n0\\r\\nX-Trailer: late\\r\\n\\r\\n")
                elif path == "/hold":
                    time.sleep(0.2); sized(c, b"held")
                else: sized(c, b"", "404 Not Found")
        def guard(c):
            try: serve(c)
            except OSError: pass
            finally:
                try: c.shutdown(socket.SHUT_RDWR)
                except OSError: pass
                c.close()
        def accept(from_):
            while True:
                c, _ = from_.accept()
                threading.Thread(target=guard, args=(c,), daemon=True).start()
        if len(sys.argv) > 2: threading.Thread(target=accept, args=(unix,), daemon=True).start()
        accept(listener)
        """
}
