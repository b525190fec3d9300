import ControlTool
import Testing

@Suite struct RedactionTests {
    private let mark = Redaction.mark

    @Test func loginsInURLsGo() {
        let cases = [
            ("https://user:p4ss@proxy.example:3128/x?y", "https://\(mark)@proxy.example:3128/x?y"),
            ("http://token@host", "http://\(mark)@host"), ("(http://u:p@ss@host/a@b)", "(http://\(mark)@host/a@b)"),
            ("https://registry.example/v2/a@b", "https://registry.example/v2/a@b"), ("a://", "a://"),
        ]
        for (text, expected) in cases { #expect(Redaction.text(text) == expected) }
    }

    @Test func valuesOfKeysThatAreNamedLikeSecretsGo() {
        let cases = [
            (#"{"password":"p4ss","a":1}"#, #"{"password":"\#(mark)","a":1}"#),
            (#"{"token": "a b\c", "x": "y"}"#, #"{"token": "\#(mark)", "x": "y"}"#),
            ("password=p4ss&x=y", "password=\(mark)&x=y"), ("Password: p4ss\nnext: x", "Password: \(mark)\nnext: x"),
            ("Authorization: Basic dXNlcjpw\nHost: a", "Authorization: \(mark)\nHost: a"),
            ("sent bearer eyJhbGci.x.y to", "sent bearer \(mark) to"),
            ("x-auth-token=abc", "x-auth-token=\(mark)"), ("CHUNKD_SECRET='x y'", "CHUNKD_SECRET='\(mark)'"),
            (#"auth": "dXNlcjpw""#, #"auth": "\#(mark)""#),
        ]
        for (text, expected) in cases { #expect(Redaction.text(text) == expected) }
    }

    @Test(arguments: [
        "passwordFile: /etc/x", "tokenServers: a", "the password is wrong", "reason=\"unauthorized\"", "token",
        "token:", "token:\nnext", "bearer", #"{"reason":"token"}"#, "", "é://ü",
    ])
    func whatIsNoSecretStays(text: String) { #expect(Redaction.text(text) == text) }
}
