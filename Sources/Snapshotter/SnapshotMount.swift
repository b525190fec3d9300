internal import Catalogue

/// One mount that makes a snapshot's files visible (containerd, core/mount).
package struct SnapshotMount: Equatable, Sendable {
    package var type: String
    package var source: String
    package var options: [String]

    package init(type: String, source: String, options: [String]) {
        self.type = type
        self.source = source
        self.options = options
    }

    /// How a snapshot is mounted on what lies below it.
    /// - Parameters:
    ///   - directory: the snapshot's own; nil for one that is only looked at through its ancestors.
    ///   - lowers: directories of its ancestors, nearest first; an image is one.
    static func of(_ kind: SnapshotRecord.Kind, directory: String, lowers: [String]) -> SnapshotMount {
        let isWritable = kind == .active
        guard let nearest = lowers.first else {
            return SnapshotMount(
                type: "bind", source: directory + "/fs", options: [isWritable ? "rw" : "ro", "rbind"])
        }
        if !isWritable, lowers.count == 1 {
            return SnapshotMount(type: "bind", source: nearest, options: ["ro", "rbind"])
        }
        // Without an index overlayfs allows that one lower directory is in many mounts, which is the point here.
        var options = ["index=off"]
        if isWritable { options += ["workdir=\(directory)/work", "upperdir=\(directory)/fs"] }
        options.append("lowerdir=" + lowers.joined(separator: ":"))
        return SnapshotMount(type: "overlay", source: "overlay", options: options)
    }
}
