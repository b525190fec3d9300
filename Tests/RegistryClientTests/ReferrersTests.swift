import ChunkModel
import HTTPTransfer
import Integrity
import OCISpec
import TestSupport
import Testing

@testable import RegistryClient

/// Artifacts beside an image: in a real registry, which keeps no list of referrers, and behind a front that does.
@Suite(.timeLimit(.minutes(2))) struct ReferrersTests {
    private let type = AccessTrace.mediaType
    private let events = Events()

    private func client(_ host: String) -> RegistryClient {
        let events = events
        return RegistryClient(
            configuration: RegistryConfiguration(
                hosts: [host: HostConfiguration(usesPlainHTTP: true)], retry: RetryPolicy(maxAttempts: 2))
        ) { events.add($0) }
    }

    /// An image with one blob of so many chunks; nobody reads what is in it.
    private func push(_ client: RegistryClient, _ reference: Reference) async throws -> (Descriptor, ChunkdImage) {
        func put(_ bytes: [UInt8]) async throws -> Descriptor {
            _ = try await client.push(.bytes(bytes), digest: SHA256.hash(bytes), to: reference)
            return Descriptor(mediaType: MediaTypes.ociConfig, digest: SHA256.hash(bytes), size: UInt64(bytes.count))
        }
        let digests = (0..<10).map { SHA256.hash([UInt8($0)]) }
        let index = try ChunkIndex(chunks: digests.enumerated().map { (UInt64($0.offset + 1) * 4096, $0.element) })
        let blob = ChunkdImage.Blob(
            descriptor: try await put([1, 2, 3]), compression: .raw, rawSize: 3,
            index: try await put(index.caibx(sizes: (4096, 4096, 4096))), seekTable: nil)
        let manifest = Manifest(
            config: try await put(Array("{}".utf8)),
            layers: ChunkdImage.layers(
                bootstrap: try await put([UInt8](repeating: 7, count: 4096)), blobs: [blob]))
        let bytes = try OCIJSON.encode(manifest)
        let digest = try await client.pushManifest(bytes, mediaType: MediaTypes.ociManifest, to: reference)
        return (
            Descriptor(mediaType: MediaTypes.ociManifest, digest: digest, size: UInt64(bytes.count)),
            try ChunkdImage(manifest: manifest, bytes: bytes)
        )
    }

    private func trace(_ digest: Digest, _ image: ChunkdImage, _ chunks: Range<Int>) throws -> AccessTrace {
        try AccessTrace(
            image: digest, blobs: image.traceBlobs(), runs: [.init(blob: 0, chunks: chunks)], bytes: 4096)
    }

    private func attach(
        _ trace: AccessTrace, _ client: RegistryClient, _ subject: Descriptor, _ reference: Reference,
        created: String = "2026-01-01T00:00:00Z"
    ) async throws -> RegistryClient.Attached {
        try await client.attach(
            trace.encoded(), artifactType: type, annotations: [RegistryClient.createdAnnotation: created], to: subject,
            in: reference)
    }

    @Test func withoutAListTheTagIsWrittenAndForeignEntriesStayAsTheyAre() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry.host)
        let reference = try Reference("\(registry.host)/team/app:1")
        let (subject, image) = try await push(client, reference)
        let blobs = try image.traceBlobs()
        #expect(try await client.trace(of: subject.digest, blobs: blobs, in: reference) == nil)

        // A signature somebody else attached, with fields this client has no name for.
        let foreign = Manifest(
            artifactType: "application/vnd.example.signature",
            config: Descriptor(mediaType: MediaTypes.ociEmpty, digest: SHA256.hash(Array("{}".utf8)), size: 2),
            layers: [image.bootstrap], subject: subject)
        let bytes = try OCIJSON.encode(foreign)
        let digest = try await client.pushManifest(
            bytes, mediaType: MediaTypes.ociManifest, to: reference.byDigest(SHA256.hash(bytes)))
        let entry = """
            {"artifactType":"application/vnd.example.signature","digest":"\(digest)","mediaType":"\(MediaTypes.ociManifest)",\
            "odd":{"list":[1,2.5,true,null,"text"]},"size":\(bytes.count)}
            """
        let list = #"{"manifests":[\#(entry)],"mediaType":"\#(MediaTypes.ociIndex)","odd":"kept","schemaVersion":2}"#
        let tag = try Reference(
            registry: registry.host, repository: "team/app", tag: RegistryClient.referrersTag(of: subject.digest))
        _ = try await client.pushManifest(Array(list.utf8), mediaType: MediaTypes.ociIndex, to: tag)

        let first = try await attach(trace(subject.digest, image, 0..<3), client, subject, reference)
        #expect(!first.isListedByRegistry && first.replaced == 0)
        let second = try await attach(
            trace(subject.digest, image, 4..<9), client, subject, reference, created: "2026-01-02T00:00:00Z")
        #expect(second.replaced == 1)
        let now = try await client.manifest(tag)
        guard case .index(let index) = now.document else { return #expect(Bool(false), "the tag is no index") }
        #expect(index.manifests.map(\.digest) == [digest, second.manifest.digest])
        #expect(index.manifests.last?.artifactType == type)
        let text = String(decoding: now.bytes, as: UTF8.self)
        #expect(text.contains(entry) && text.contains(#""odd":"kept""#), "\(text)")

        let found = try await client.trace(of: subject.digest, blobs: blobs, in: reference)
        #expect(found?.trace.runs == [.init(blob: 0, chunks: 4..<9)])
        #expect(found?.manifest.digest == second.manifest.digest)
        // That the registry keeps no list was found out once.
        #expect(events.results(.referrers) == ["not_found"])
        let artifact = try await client.manifest(reference.byDigest(second.manifest.digest))
        guard case .manifest(let manifest) = artifact.document else { return #expect(Bool(false), "no manifest") }
        #expect(manifest.subject?.digest == subject.digest && manifest.config.mediaType == MediaTypes.ociEmpty)
    }

    @Test func somethingElseUnderTheTagIsNotOverwritten() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry.host)
        let reference = try Reference("\(registry.host)/team/app:1")
        let (subject, image) = try await push(client, reference)
        let other = try Reference("\(registry.host)/team/app:\(RegistryClient.referrersTag(of: subject.digest))")
        _ = try await push(client, other)
        let error = await #expect(throws: RegistryError.self) {
            try await attach(trace(subject.digest, image, 0..<1), client, subject, reference)
        }
        #expect(error?.code == .invalidDocument, "\(error?.message ?? "")")
    }

    @Test func theNewestGoodTraceIsTakenAndABadOneIsNot() async throws {
        let registry = try RegistryFixture.start()
        let client = client(registry.host)
        let reference = try Reference("\(registry.host)/team/app:1")
        let (subject, image) = try await push(client, reference)
        let blobs = try image.traceBlobs()
        let good = try await attach(trace(subject.digest, image, 0..<3), client, subject, reference)
        // Of another image, and no trace at all, each said to be newer.
        var entries = [good.manifest]
        for (number, content) in [
            try trace(SHA256.hash([1]), image, 4..<5).encoded(), Array("chunkd-trace 2.0\n".utf8),
        ].enumerated() {
            let bad = try await client.attach(
                content, artifactType: type,
                annotations: [RegistryClient.createdAnnotation: "2027-01-0\(number + 1)T00:00:00Z"], to: subject,
                in: reference)
            entries.append(bad.manifest)
        }
        let tag = try Reference("\(registry.host)/team/app:\(RegistryClient.referrersTag(of: subject.digest))")
        _ = try await client.pushManifest(
            OCIJSON.encode(ImageIndex(manifests: entries)), mediaType: MediaTypes.ociIndex, to: tag)
        let found = try await client.trace(of: subject.digest, blobs: blobs, in: reference)
        #expect(found?.manifest.digest == good.manifest.digest)

        _ = try await client.pushManifest(
            OCIJSON.encode(ImageIndex(manifests: Array(entries.dropFirst()))), mediaType: MediaTypes.ociIndex, to: tag)
        let error = await #expect(throws: RegistryError.self) {
            try await client.trace(of: subject.digest, blobs: blobs, in: reference)
        }
        #expect(error?.code == .invalidDocument)
    }

    @Test func aRegistryThatKeepsAListIsAskedForItPageByPage() async throws {
        let registry = try RegistryFixture.start()
        let front = try PythonServer.start(listingFront, arguments: ["\(registry.port)"])
        let client = client(front.host)
        let reference = try Reference("\(front.host)/team/app:1")
        let (subject, image) = try await push(client, reference)
        let blobs = try image.traceBlobs()
        #expect(try await client.trace(of: subject.digest, blobs: blobs, in: reference) == nil)
        let old = try await attach(trace(subject.digest, image, 0..<3), client, subject, reference)
        let new = try await attach(
            trace(subject.digest, image, 4..<9), client, subject, reference, created: "2026-01-02T00:00:00Z")
        #expect(old.isListedByRegistry && new.isListedByRegistry)
        let found = try await client.trace(of: subject.digest, blobs: blobs, in: reference)
        #expect(found?.manifest.digest == new.manifest.digest)
        #expect(front.log.contains("artifactType=application%2Fvnd.chunkd.trace.v1"), "\(front.log)")
        #expect(!front.log.contains("/manifests/sha256-"), "the tag is for registries without a list")
        // One page an entry: both were read.
        #expect(front.log.contains("page=1"))
    }
}

/// A registry's front that keeps a list of referrers in memory, one entry a page.
private let listingFront = """
    import hashlib, http.client, http.server, json, sys
    from urllib.parse import urlparse, parse_qs
    port, behind = int(sys.argv[1]), int(sys.argv[2])
    known = {}
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def log_message(self, *a): pass
        def reply(self, status, headers, body):
            self.send_response(status)
            for k, v in headers:
                if k.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(k, v)
            if self.command != "HEAD": self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD": self.wfile.write(body)
        def handle_any(self):
            print(self.command, self.path, flush=True)
            sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            url = urlparse(self.path)
            if "/referrers/" in url.path:
                subject, query = url.path.split("/")[-1], parse_qs(url.query)
                page = int(query.get("page", ["0"])[0])
                entries = known.get(subject, [])
                index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                         "manifests": entries[page:page + 1]}
                more = [("Link", '<%s?page=%d>; rel="next"' % (url.path, page + 1))] if page + 1 < len(entries) else []
                kind = [("Content-Type", "application/vnd.oci.image.index.v1+json")]
                return self.reply(200, kind + more, json.dumps(index).encode())
            connection = http.client.HTTPConnection("127.0.0.1", behind)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection",)}
            connection.request(self.command, self.path, body=sent or None, headers=headers)
            answer = connection.getresponse()
            body, more = answer.read(), []
            if self.command == "PUT" and "/manifests/" in url.path and answer.status == 201:
                manifest = json.loads(sent)
                if "subject" in manifest:
                    subject = manifest["subject"]["digest"]
                    more = [("OCI-Subject", subject)]
                    known.setdefault(subject, []).append({
                        "mediaType": manifest["mediaType"], "size": len(sent),
                        "digest": "sha256:" + hashlib.sha256(sent).hexdigest(),
                        "artifactType": manifest["artifactType"], "annotations": manifest.get("annotations", {})})
            self.reply(answer.status, answer.getheaders() + more, body)
        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    """
