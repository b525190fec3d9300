/// Operating system and CPU an image is for (OCI image-index.md, "platform"), in Go's names.
///
/// Value type, safe on any thread.
package struct Platform: Hashable, Sendable, Codable, CustomStringConvertible {
    package let os: String
    package let architecture: String
    /// CPU variant such as `v7`; nil when there is none or it is the architecture's default.
    package let variant: String?

    private enum CodingKeys: String, CodingKey { case os, architecture, variant }

    /// Names are put in Go's form: `x86_64` → `amd64`, `aarch64` → `arm64`, `arm64/v8` → `arm64`, `arm` → `arm/v7`.
    package init(os: String, architecture: String, variant: String? = nil) {
        self.os = os
        var variant = variant?.isEmpty == true ? nil : variant
        switch architecture {
        case "x86_64", "x86-64": self.architecture = "amd64"
        case "aarch64": self.architecture = "arm64"
        case "armhf": (self.architecture, variant) = ("arm", "v7")
        case "armel": (self.architecture, variant) = ("arm", "v6")
        default: self.architecture = architecture
        }
        switch (self.architecture, variant) {
        case ("arm64", "v8"), ("arm64", "8"), ("amd64", "v1"): variant = nil
        case ("arm", nil), ("arm", "7"): variant = "v7"
        default: break
        }
        self.variant = variant
    }

    /// Parses `OS/ARCH[/VARIANT]`, as `--platform` takes it.
    package init(_ string: some StringProtocol) throws(OCISpecError) {
        let parts = string.split(separator: "/", omittingEmptySubsequences: false)
        let isWord: (Substring) -> Bool = { part in
            (1...32).contains(part.utf8.count)
                && part.utf8.allSatisfy {
                    (97...122).contains($0) || (48...57).contains($0) || "._-".utf8.contains($0)
                }
        }
        guard (2...3).contains(parts.count), parts.map({ Substring($0) }).allSatisfy(isWord) else {
            throw OCISpecError(
                .invalidPlatform,
                "platform \(OCISpecError.quote(string)): expected OS/ARCH[/VARIANT], for example linux/arm64/v8")
        }
        self.init(
            os: String(parts[0]), architecture: String(parts[1]), variant: parts.count == 3 ? String(parts[2]) : nil)
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            os: try container.decode(String.self, forKey: .os),
            architecture: try container.decode(String.self, forKey: .architecture),
            variant: try container.decodeIfPresent(String.self, forKey: .variant))
    }

    /// What this program was built for.
    package static var current: Platform {
        #if arch(x86_64)
            Platform(os: "linux", architecture: "amd64")
        #elseif arch(arm64)
            Platform(os: "linux", architecture: "arm64")
        #else
            #error("name this architecture")
        #endif
    }

    package var description: String { os + "/" + architecture + (variant.map { "/" + $0 } ?? "") }

    /// Whether an image for `self` is meant for a node that asks for `wanted`: operating system, architecture and
    /// variant are equal after normalisation. Lower `arm` variants also run on higher ones, see `ImageIndex.select`.
    package func matches(_ wanted: Platform) -> Bool { self == wanted }

    /// Platforms an image may be for and still run on `self`, best first.
    var compatible: [Platform] {
        guard architecture == "arm", let variant, let level = variant.utf8.last, variant.utf8.count == 2,
            (53...56).contains(level)
        else { return variant == nil ? [self] : [self, Platform(os: os, architecture: architecture)] }
        return stride(from: level, through: 53, by: -1).map {
            Platform(os: os, architecture: architecture, variant: "v" + String(decoding: [$0], as: UTF8.self))
        }
    }
}
