/// Which container a process is in, by its cgroup(7) file. Engines choose the paths (OCI runtime specification,
/// "cgroupsPath"), and what runs in a container may make further cgroups beneath its own.
package enum ContainerCgroup {
    /// Characters of an id.
    package static let maxLength = 128
    /// Hexadecimal digits of an id an engine has drawn.
    private static let drawnLength = 64

    /// The container a cgroup file names: 64 hexadecimal digits somewhere in a component of a path, with or without systemd
    /// (`/kubepods.slice/…/cri-containerd-ID.scope`, `/docker/ID`); else what `ctr` makes, `/NAMESPACE/ID`. Nil when it
    /// names none.
    package static func container(_ text: String) -> String? {
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let parts = fields[2].split(separator: "/")
            // From the top: what is below an engine's own is made by the container.
            for part in parts {
                let words = part.split { !$0.isASCII || !$0.isHexDigit }
                if let id = words.last(where: { $0.utf8.count == drawnLength }) { return String(id) }
            }
            if parts.count == 2, !parts.contains(where: { $0.contains(".slice") || $0.contains(".service") }) {
                return String(parts[1].prefix(maxLength))
            }
        }
        return nil
    }
}
