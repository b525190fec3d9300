import Membership
import Testing

@Suite("What a node says of itself")
struct OwnRecordTests {
    @Test("another certificate has the record signed anew with a higher incarnation, at most as often as allowed")
    func certificateChanged() throws {
        var fixture = try Fixture(knows: ["a"])
        fixture.now = .seconds(1)
        func signed(_ directives: [Membership.Directive]) -> [UInt64] {
            directives.compactMap { if case .sign(let record) = $0 { record.incarnation } else { nil } }
        }
        #expect(signed(fixture.handle(.certificateChanged)) == [1_001])
        // Before the first was handed in: it may have been signed with the certificate before.
        #expect(signed(fixture.handle(.certificateChanged)) == [])
        let interval = MembershipConfiguration().recordInterval
        #expect(signed(try fixture.runAnswering(until: .seconds(1) + interval)) == [1_002])

        _ = fixture.handle(.signed(try Fixture.record("own", 1_002, boot: 1_000)))
        #expect(fixture.membership.own.incarnation == 1_002)
        _ = fixture.handle(.leave)
        fixture.now += interval
        #expect(signed(fixture.handle(.certificateChanged)) == [])
    }
}
