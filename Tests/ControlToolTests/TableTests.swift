import ControlTool
import Testing

@Suite struct TableTests {
    @Test func controlCharactersNeverReachATerminal() {
        let text = Table.render(header: ["NAME"], rows: [["a\u{1B}[2Jb\n"], ["\u{9B}c"], ["ä–ok"]])
        #expect(text == "NAME\na?[2Jb?\n?c\nä–ok")
    }

    @Test func columnsAreAlignedWithoutTrailingSpaces() {
        let text = Table.render(
            header: ["IMAGE", "SIZE"], rows: [["a", "1 B"], ["longer/name", "10 GiB"], ["c", ""]], right: [1])
        #expect(
            text == """
                IMAGE          SIZE
                a               1 B
                longer/name  10 GiB
                c
                """)
        #expect(Table.render(header: [], rows: []) == "")
        #expect(Table.pairs([("a", "1"), ("long", "2")]) == "a:     1\nlong:  2")
    }

    @Test(
        arguments: [
            (0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (10 << 20, "10 MiB"),
            (UInt64(1) << 40, "1 TiB"), (UInt64.max, "16384 PiB"),
        ] as [(UInt64, String)])
    func bytesAreReadable(count: UInt64, text: String) {
        #expect(Table.bytes(count) == text)
    }

    @Test func percentagesNeverRoundToTheEnds() {
        #expect(Table.percent(0, of: 1_000_000) == "0%")
        #expect(Table.percent(1, of: 1_000_000) == "1%")
        #expect(Table.percent(999_999, of: 1_000_000) == "99%")
        #expect(Table.percent(1_000_000, of: 1_000_000) == "100%")
        #expect(Table.percent(0, of: 0) == "100%")
    }

    @Test(arguments: [
        (0.0, "0 us"), (0.0005, "500 us"), (0.0012, "1.2 ms"), (0.25, "250 ms"), (3.44, "3.4 s"), (65, "65 s"),
        (600, "10 m"), (7500, "2 h 5 m"),
    ])
    func timesAreReadable(value: Double, text: String) {
        #expect(Table.seconds(value) == text)
    }
}
