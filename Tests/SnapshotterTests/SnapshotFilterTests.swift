import Snapshotter
import Testing

@Suite("containerd's filters")
struct SnapshotFilterTests {
    private func matches(_ filter: String, _ fields: [String: String]) throws -> Bool {
        try SnapshotFilter(filter).matches { fields[$0.joined(separator: "/")] }
    }

    @Test func selectorsMustAllHold() throws {
        let fields = ["name": "sha256:a", "kind": "Committed", "labels/a.b/c": "x,y \"z\""]
        #expect(try matches("name==sha256:a", fields))
        #expect(try matches("name==sha256:a,kind==Committed", fields))
        #expect(try !matches("name==sha256:a,kind==Active", fields))
        #expect(try matches(#"labels."a.b/c"=="x,y \"z\"""#, fields))
        #expect(try matches("labels.\"a.b/c\"", fields))
        #expect(try matches("parent!=x", fields))
        #expect(try !matches("parent", fields))
        #expect(try !matches("name!=sha256:a", fields))
    }

    @Test(
        "what cannot be read is refused with its place",
        arguments: [
            "", ",", "name=", "name=x", "name~=x", "name==\"x", "name==x y", "a..b", "\"a", "a==\"\\q\"", "name==x,",
        ])
    func malformed(_ text: String) {
        let error = #expect(throws: FilterError.self) { try SnapshotFilter(text) }
        #expect(error?.description.contains("expected") == true)
    }

    @Test func aFilterThatIsTooLongIsRefused() {
        #expect(throws: FilterError.self) {
            try SnapshotFilter("name==" + String(repeating: "x", count: SnapshotFilter.maxLength))
        }
    }
}
