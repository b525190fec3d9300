import FoundationEssentials

extension RegistryCredential {
    /// Bytes of an Authorization value that is read: user and password of 1 KiB each.
    private static let maxLength = 4096

    /// The user and password of an `Authorization: Basic` value (RFC 7617); nil for any other, for an empty half, and for
    /// what could not be sent on as it is.
    package init?(basicAuthorization value: String) {
        let scheme = "basic "
        guard value.utf8.count <= Self.maxLength, value.lowercased().hasPrefix(scheme),
            let data = Data(base64Encoded: String(value.dropFirst(scheme.count).drop { $0 == " " })),
            let text = String(bytes: data, encoding: .utf8), let colon = text.firstIndex(of: ":"),
            text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
        else { return nil }
        let (username, password) = (String(text[..<colon]), String(text[text.index(after: colon)...]))
        guard !username.isEmpty, !password.isEmpty else { return nil }
        self = .password(username: username, password: password)
    }
}
