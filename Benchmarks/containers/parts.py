"""Nodes with containerd, and containerd as the kubelet sees it (gRPC on its socket)."""

import datetime
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

import grpc

import rig
import nodes
from nodes import DIRECTORY, MEBIBYTE, REGISTRY, SCRIPTS

MESSAGES = os.path.join(rig.WORK, "messages")
# What a container of the images prints once it has read what it reads at its start.
READY = "ready"
PODS = "runtime.v1.RuntimeService"
IMAGES = "runtime.v1.ImageService"
SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots"


def load_messages():
    """Makes Python of the .proto files that the Swift code is made of too."""
    os.makedirs(MESSAGES)
    for module, name in (("ContainerTestSupport", "cri"), ("Snapshotter", "snapshots")):
        rig.run("protoc", f"--proto_path={rig.TOP}/Sources/{module}/Protos", f"--python_out={MESSAGES}", f"{name}.proto")
    sys.path.insert(0, MESSAGES)
    import cri_pb2
    import snapshots_pb2
    return cri_pb2, snapshots_pb2


class Disk:
    """A new ext4 with a journal, as nodes have it. Without one, which the machine's own disk may not have, the kernel steps
    over each inode that was deleted in the last minutes, and mkdir(2) takes up to ten times as long after many deletions."""

    SIZE = 24 << 30

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        image = self.directory + ".img"
        self.unmount()  # what a run that was killed has left
        os.makedirs(self.directory, exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(self.SIZE)
        try:
            rig.run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
            device = rig.run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        finally:
            os.remove(image)
        try:
            rig.run("mount", device, self.directory)
        finally:
            # Gone with its last user.
            rig.run("losetup", "--detach", device)
        return self

    def unmount(self):
        while os.path.ismount(self.directory):
            rig.run("umount", "--lazy", self.directory)

    def __exit__(self, *_):
        self.unmount()
        os.rmdir(self.directory)


class Containerd:
    """containerd of one node of a cluster that is up."""

    cri = snapshots = None
    # Counts containers, over all: what one has printed stays in its log.
    names = itertools.count(1)

    def __init__(self, node, snapshotter):
        if Containerd.cri is None:
            Containerd.cri, Containerd.snapshots = load_messages()
        self.node = node
        self.directory = f"{DIRECTORY}/n{node}/containerd"
        rig.run(f"{SCRIPTS}/containerd", "start", node, snapshotter, timeout=60)
        self.channel = grpc.insecure_channel(f"unix:{self.directory}/containerd.sock")
        self.pod_config = self.cri.PodSandboxConfig(
            metadata={"name": f"pod-{node}", "uid": f"pod-{node}", "namespace": "default"},
            log_directory=self.directory + "/logs",
            linux={"security_context": {"namespace_options": {"network": self.cri.NODE}}})
        self.pod = self.call(PODS, "RunPodSandbox", config=self.pod_config).pod_sandbox_id

    def close(self):
        self.call(PODS, "StopPodSandbox", pod_sandbox_id=self.pod)
        self.call(PODS, "RemovePodSandbox", pod_sandbox_id=self.pod)
        self.channel.close()
        rig.run(f"{SCRIPTS}/containerd", "stop", self.node, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()

    def call(self, service, method, **fields):
        """A call of one of the services; its answer."""
        messages, metadata = self.cri, ()
        answer = method + "Response"
        if service == SNAPSHOTS:
            messages, metadata = self.snapshots, (("containerd-namespace", "bench"),)
            answer = "MountsResponse" if method == "Prepare" else None
        request = {"Remove": "KeyRequest"}.get(method, method + "Request")
        decode = getattr(messages, answer).FromString if answer else bytes
        send = self.channel.unary_unary(f"/{service}/{method}", response_deserializer=decode,
                                        request_serializer=lambda message: message.SerializeToString())
        return send(getattr(messages, request)(**fields), timeout=300, metadata=metadata)

    def ctr(self, *arguments):
        return rig.run(f"{SCRIPTS}/containerd", "ctr", self.node, *arguments, timeout=300)

    # ----------------------------------------------------------------------------------------------- containers

    def pull_and_start(self, image):
        """Pulls an image and starts a container of it; its id and seconds until pulled and until its first output."""
        name = f"c{next(self.names)}"
        log = f"{self.directory}/logs/{name}.log"
        begin = time.time()
        self.call(IMAGES, "PullImage", image={"image": image})
        pulled = time.time() - begin
        container = self.call(
            PODS, "CreateContainer", pod_sandbox_id=self.pod, sandbox_config=self.pod_config,
            config={"metadata": {"name": name}, "image": {"image": image}, "log_path": name + ".log",
                    "linux": {"security_context": {"namespace_options": {"network": self.cri.NODE}}}}).container_id
        self.call(PODS, "StartContainer", container_id=container)
        rig.until(120, "the container's first output", lambda: os.path.exists(log) and os.path.getsize(log) > 0)
        with open(log) as file:
            at, _, _, text = file.readline().rstrip("\n").split(" ", 3)
        if text != READY:
            raise rig.Failed(f"the container's first output is {text}")
        # containerd's own time of the line; in microseconds.
        return container, pulled, datetime.datetime.fromisoformat(at[:26].rstrip("Z") + "+00:00").timestamp() - begin

    def mirror(self, cluster):
        """Has it pull through chunkd's mirror instead of straight from the registry."""
        hosts = f"{self.directory}/hosts"
        os.remove(f"{hosts}/{REGISTRY}/hosts.toml")
        cluster.control(self.node, "mirror", "install", "--certs-dir", hosts)

    def pull(self, image):
        """Pulls an image; seconds until that is done."""
        begin = time.monotonic()
        self.call(IMAGES, "PullImage", image={"image": image})
        return time.monotonic() - begin

    def exec(self, container, *command):
        done = self.call(PODS, "ExecSync", container_id=container, cmd=command, timeout=120)
        if done.exit_code != 0:
            raise rig.Failed(f"{' '.join(command)}: {done.stderr.decode()}")
        return done.stdout.decode()

    def remove(self, container, image):
        self.call(PODS, "StopContainer", container_id=container, timeout=0)
        self.call(PODS, "RemoveContainer", container_id=container)
        self.remove_image(image)

    def remove_image(self, image):
        self.call(IMAGES, "RemoveImage", image={"image": image})


class Cluster(nodes.Cluster):
    """Nodes whose chunkd serves snapshots."""

    @staticmethod
    def script(name, *arguments):
        settings = os.path.join(rig.WORK, "settings.yaml")
        with open(settings, "w") as file:
            file.write(f'snapshotter: {{enabled: true}}\nmirror: {{enabled: true, registries: "{REGISTRY}"}}\n')
        environment = {"CHUNKD_PROGRAMS": rig.PROGRAMS, "CHUNKD_CLUSTER_DIR": DIRECTORY, "CHUNKD_SETTINGS": settings}
        rig.run(f"{SCRIPTS}/{name}", *arguments, env=os.environ | environment, timeout=120)

    def clear(self, count):
        """Has the first nodes forget all that no container uses."""
        for node in range(1, count + 1):
            self.control(node, "gc")
        rig.settle()

    def forget_mirrored(self, count):
        """Has the first nodes forget what they have of ordinary images."""
        self.script("scenarios/kill", "all")
        for node in range(1, count + 1):
            shutil.rmtree(f"{self.directory(node)}/state/agent/mirror")
        self.script("scenarios/restart", "all")
        rig.until(60, "all nodes see each other", lambda: all(
            sum(peer["state"] == "alive" for peer in json.loads(self.control(node, "peers", "-o", "json"))["peers"]) == count - 1
            for node in range(1, count + 1)))
        rig.settle()

    def sent(self, since, repository):
        """Bytes the registry says it has sent of a repository since an offset of its log: in all, and to containerd."""
        line = re.compile(r'^\S+ \S+ \S+ \[[^]]*\] "GET /v2/' + repository + r'/\S+ HTTP/1.1" 20[06] (\d+) "[^"]*" "([^"]*)"')
        with open(f"{DIRECTORY}/registry.log", encoding="utf-8", errors="replace") as file:
            file.seek(since)
            matches = [match for match in map(line.match, file) if match]
        containerd = sum(int(match[1]) for match in matches if match[2].startswith("containerd/"))
        return sum(int(match[1]) for match in matches), containerd


class Images:
    """The image of the figures: ordinary, and a chunkd image made from that."""

    LAYERS, SIZE, READ = 4, 320 * MEBIBYTE, 0.08
    ordinary, converted = f"{REGISTRY}/bench/app:1", f"{REGISTRY}/bench/app-chunkd:1"
    # The same as `converted`, digest by digest, where a trace can be attached to it.
    traced = f"{REGISTRY}/bench/app-traced:1"
    repositories = {ordinary: "bench/app", converted: "bench/app-chunkd", traced: "bench/app-traced"}

    def __init__(self, cluster):
        """Files from 4 KiB to 8 MiB, as many of each order of size, that do not compress; the entrypoint reads some
        of them, chosen by chance and with the same seed always."""
        work, chance = os.path.join(rig.WORK, "image"), random.Random(1)
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work + "/bin")
        listed, total, read = [], 0, 0
        while total < self.SIZE:
            size = int(4096 * 2 ** chance.uniform(0, 11))
            path = f"layer-{len(listed) * 7919 % self.LAYERS}/{len(listed):04}"
            os.makedirs(os.path.dirname(f"{work}/app/{path}"), exist_ok=True)
            with open(f"{work}/app/{path}", "wb") as file:
                file.write(chance.randbytes(size))
            listed.append((path, size))
            total += size
        chosen = []
        for path, size in chance.sample(listed, len(listed)):
            if read + size <= self.READ * total:
                chosen.append("/app/" + path)
                read += size
        self.details = {"image_bytes": total, "files": len(listed), "entrypoint_reads_bytes": read,
                        "entrypoint_reads_files": len(chosen)}
        self._push(cluster, work, chosen)

    def _push(self, cluster, work, chosen):
        layout = work + "/layout"

        def umoci(command, *arguments):
            rig.run("umoci", command, "--image", layout + ":1", *arguments)
        rig.run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", work + "/bin/measure",
                os.path.join(os.path.dirname(os.path.abspath(__file__)), "measure.c"))
        shutil.copy(shutil.which("busybox"), work + "/bin/busybox")
        for name in ("sh", "cat", "sleep"):
            os.symlink("busybox", f"{work}/bin/{name}")
        with open(work + "/bin/start", "w") as file:
            os.fchmod(file.fileno(), 0o755)
            file.write(f"#!/bin/sh\ncat {' '.join(chosen)} >/dev/null\necho {READY}\nexec sleep 1000000\n")
        rig.run("umoci", "init", "--layout", layout)
        umoci("new")
        umoci("insert", work + "/bin", "/bin")
        for number in range(self.LAYERS):
            umoci("insert", f"{work}/app/layer-{number}", f"/app/layer-{number}")
        umoci("config", "--config.env", "PATH=/bin", "--config.entrypoint", "/bin/start")
        rig.run("nsenter", "--net=/run/netns/chunkd-reg", "skopeo", "copy", "--quiet", "--insecure-policy",
                "--dest-tls-verify=false", f"oci:{layout}:1", f"docker://{self.ordinary}")
        for image in (self.converted, self.traced):
            cluster.control(1, "image", "build", self.ordinary, image)
        shutil.rmtree(work)
        # The registry's disk is no part of a figure.
        subprocess.run(f"cat {DIRECTORY}/registry/docker/registry/v2/blobs/sha256/*/*/data >/dev/null", shell=True,
                       check=True)
