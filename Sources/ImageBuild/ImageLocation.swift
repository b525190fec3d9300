package import OCISpec

/// What an image is built from.
package enum ImageSource: Equatable, Sendable, CustomStringConvertible {
    /// A tree of files, whole.
    case directory(String)
    /// An OCI image layout directory; without a tag it must hold exactly one image.
    case layout(path: String, tag: String?)
    /// An ordinary image in a registry.
    case registry(Reference)

    /// Parses SRC of the command line: `oci:PATH[:TAG]`; a path that starts with `/`, `./` or `../`, or is `.` or `..`;
    /// else a registry reference. What a word means never depends on which files exist.
    package init(argument: String) throws(ImageBuildError) {
        if argument == "." || argument == ".." || argument.hasPrefix("/") || argument.hasPrefix("./")
            || argument.hasPrefix("../")
        {
            self = .directory(argument)
        } else if let layout = try LayoutArgument(argument) {
            self = .layout(path: layout.path, tag: layout.tag)
        } else {
            self = .registry(
                try parseReference(
                    argument, "a source is a directory (/PATH or ./PATH), oci:PATH[:TAG] or a registry reference"))
        }
    }

    package var description: String {
        switch self {
        case .directory(let path): path
        case .layout(let path, let tag): "oci:\(path)" + (tag.map { ":" + $0 } ?? "")
        case .registry(let reference): reference.description
        }
    }
}

/// Where a chunkd image goes to, or lies.
package enum ImageDestination: Equatable, Sendable, CustomStringConvertible {
    /// An OCI image layout directory; made when it does not exist. Without a tag: `latest`.
    case layout(path: String, tag: String?)
    case registry(Reference)

    /// Parses DEST of the command line: `oci:PATH[:TAG]` or a registry reference.
    package init(argument: String) throws(ImageBuildError) {
        if let layout = try LayoutArgument(argument) {
            self = .layout(path: layout.path, tag: layout.tag)
        } else {
            self = .registry(
                try parseReference(argument, "a destination is oci:PATH[:TAG] or a registry reference"))
        }
    }

    package var description: String {
        switch self {
        case .layout(let path, let tag): "oci:\(path)" + (tag.map { ":" + $0 } ?? "")
        case .registry(let reference): reference.description
        }
    }
}

/// `oci:PATH[:TAG]`.
private struct LayoutArgument {
    let path: String
    let tag: String?

    /// nil when the argument does not start with `oci:`.
    init?(_ argument: String) throws(ImageBuildError) {
        guard argument.hasPrefix("oci:") else { return nil }
        let rest = argument.dropFirst(4)
        // A colon after the last slash starts the tag, so paths may hold colons.
        let name = rest.lastIndex(of: "/").map { rest[$0...] } ?? rest
        if let colon = name.firstIndex(of: ":") {
            path = String(rest[..<colon])
            let text = String(rest[rest.index(after: colon)...])
            guard Reference.isTag(text) else {
                throw ImageBuildError(
                    .invalidArgument,
                    "\(OCISpecError.quote(argument)): after the path expected a tag of letters, digits, '_', '.', '-'")
            }
            tag = text
        } else {
            path = String(rest)
            tag = nil
        }
        guard !path.isEmpty else {
            throw ImageBuildError(.invalidArgument, "\(OCISpecError.quote(argument)): expected oci:PATH[:TAG]")
        }
    }
}

private func parseReference(_ argument: String, _ forms: String) throws(ImageBuildError) -> Reference {
    do {
        return try Reference(argument)
    } catch {
        throw ImageBuildError(.invalidArgument, "\(error); \(forms)")
    }
}
