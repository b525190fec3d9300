import Glibc
import LinuxSystem

/// Extended attributes of a path, links not followed (xattr(7)).
///
/// Swift's Glibc module leaves <sys/xattr.h> out, so the three calls are looked up in the C library by name; their
/// types are those of the man pages.
package enum ExtendedAttributes {
    private typealias Set =
        @convention(c) (
            UnsafePointer<CChar>, UnsafePointer<CChar>, UnsafeRawPointer?, Int, Int32
        ) -> Int32
    private typealias Get =
        @convention(c) (
            UnsafePointer<CChar>, UnsafePointer<CChar>, UnsafeMutableRawPointer?, Int
        ) -> Int
    private typealias List = @convention(c) (UnsafePointer<CChar>, UnsafeMutablePointer<CChar>?, Int) -> Int

    private static func function<Function>(_ name: String, _: Function.Type) throws(SystemError) -> Function {
        guard let symbol = dlsym(nil, name) else { throw SystemError(ENOSYS, "dlsym", name) }
        return unsafeBitCast(symbol, to: Function.self)
    }

    /// Sets one attribute.
    package static func set(_ path: BytePath, _ name: String, _ value: [UInt8]) throws(SystemError) {
        let set = try function("lsetxattr", Set.self)
        try path.calling("lsetxattr \(name)") { set($0, name, value, value.count, 0) }
    }

    /// All attributes by name, sorted. A file system without attributes has none.
    package static func all(_ path: BytePath) throws(SystemError) -> [(name: String, value: [UInt8])] {
        let list = try function("llistxattr", List.self)
        let get = try function("lgetxattr", Get.self)
        // XATTR_LIST_MAX and XATTR_SIZE_MAX are both 64 KiB.
        var buffer = [CChar](repeating: 0, count: 64 << 10)
        let count: Int
        do throws(SystemError) {
            count = try path.calling("llistxattr") { list($0, &buffer, buffer.count) }
        } catch  where error.errno == EOPNOTSUPP { return [] }
        let names = buffer[..<count].map { UInt8(bitPattern: $0) }.split(separator: 0)
            .map { String(decoding: $0, as: UTF8.self) }.sorted()
        var found: [(name: String, value: [UInt8])] = []
        for name in names {
            var value = [UInt8](repeating: 0, count: 64 << 10)
            let size = try path.calling("lgetxattr \(name)") { get($0, name, &value, value.count) }
            found.append((name, Array(value[..<size])))
        }
        return found
    }
}
