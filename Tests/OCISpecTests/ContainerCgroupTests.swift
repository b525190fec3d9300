import OCISpec
import Testing

@Suite struct ContainerCgroupTests {
    private static let id = String(repeating: "0a", count: 32)
    private static let other = String(repeating: "0b", count: 32)

    @Test(arguments: [
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-\(id).scope\n", id),
        ("0::/system.slice/docker-\(id).scope", id), ("0::/docker/\(id)/inner", id),
        ("0::/docker/\(id)/\(other)", id), ("12:cpu:/user\n0::/k8s.io/\(id)\n", id), ("0::/default/web-1\n", "web-1"),
    ])
    func aContainerIsFoundInTheFormsEnginesUse(cgroup: String, container: String) {
        #expect(ContainerCgroup.container(cgroup) == container)
    }

    @Test(arguments: [
        "0::/user.slice/user-0.slice/session-1.scope", "0::/system.slice/chunkd.service", "0::/", "", "0:",
        "0::/docker/\(id.dropLast())/x/y", "0::/docker/\(id)00/x", "no file of this kind",
    ])
    func everythingElseIsNone(cgroup: String) { #expect(ContainerCgroup.container(cgroup) == nil) }

    @Test func anIdIsBounded() {
        let long = String(repeating: "x", count: 5000)
        #expect(ContainerCgroup.container("0::/default/\(long)")?.count == ContainerCgroup.maxLength)
    }
}
