import FoundationEssentials
import Glibc

/// The target that `CHUNKD_FUZZ_TARGET` names; chosen once.
private let target: FuzzTarget = {
    let name = ProcessInfo.processInfo.environment["CHUNKD_FUZZ_TARGET"] ?? ""
    guard let found = fuzzTargets.first(where: { $0.name == name }) else {
        let names = fuzzTargets.map(\.name).joined(separator: " ")
        print("CHUNKD_FUZZ_TARGET is \"\(name)\"; one of: \(names)")
        exit(2)
    }
    return found
}()

/// libFuzzer's entry: one input. https://llvm.org/docs/LibFuzzer.html
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target.run(Array(UnsafeBufferPointer(start: start, count: count)))
    return 0
}
