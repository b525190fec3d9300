/// Why bytes are not an EROFS image that chunkd gives to the kernel.
///
/// Value type, safe to use from any thread.
package struct ErofsError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The closed set of causes; the raw value is fit for a metric label.
    package enum Code: String, Sendable, CaseIterable {
        /// No EROFS superblock where it has to be.
        case notErofs = "not_erofs"
        /// A feature, layout or version outside what chunkd's images use (compression, 48-bit layout, …).
        case unsupported
        /// The superblock's CRC-32C is wrong.
        case badChecksum = "bad_checksum"
        /// Metadata or inline data that lies outside the image.
        case outsideImage = "outside_image"
        /// File data that lies outside its device, or a device that does not exist.
        case outsideDevice = "outside_device"
        /// The device table and the devices given do not agree.
        case badDevices = "bad_devices"
        case badInode = "bad_inode"
        case badDirectory = "bad_directory"
        case badName = "bad_name"
        case badSymlink = "bad_symlink"
        case badXattr = "bad_xattr"
        /// More inodes, nesting or shared tables than a limit allows.
        case limitExceeded = "limit_exceeded"
    }

    package let code: Code
    /// Where: `superblock`, `device 1`, `inode 40`, `inode 40, dirent 3`.
    package let place: String
    /// What was expected and what was found.
    package let message: String

    init(_ code: Code, _ place: String, _ message: String) {
        self.code = code
        self.place = place
        self.message = message
    }

    /// A bounded label for metrics.
    package var reason: String { code.rawValue }
    package var description: String { "EROFS image, \(place): \(message)" }
}
