"""The parts a figure is measured on: a registry, a delaying proxy, one node. All on 127.0.0.1, all ended by pid."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(TOP, "Benchmarks", ".work")
BIN = os.path.join(WORK, "bin")
PROGRAMS = os.environ.get("CHUNKD_PROGRAMS") or os.path.join(TOP, ".build", "release")

# The programs read CHUNKD_ variables as settings; a bench has settings of its own.
for variable in [name for name in os.environ if name.startswith("CHUNKD_")]:
    del os.environ[variable]


class Failed(Exception):
    """Something a figure needs did not work."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, **options):
    """Runs a program to its end; its standard output. Raises with its standard error."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=options.pop("timeout", 600), **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.decode()[-2000:]}")
    return done.stdout.decode()


def until(seconds, what, condition):
    """Waits for a condition, with a bound."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise Failed(f"{what}: not within {seconds} seconds")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def mounts_beneath(path):
    with open("/proc/self/mountinfo") as lines:
        points = [line.split()[4] for line in lines]
    return sorted((p for p in points if p == path or p.startswith(path + "/")), reverse=True)


def settle():
    """Writes back what is dirty and drops clean caches, so that no measurement pays for the one before."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


class Process:
    """A child that is ended by its pid."""

    everyone = []

    def __init__(self, command, log):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          start_new_session=True)
        Process.everyone.append(self)

    @property
    def pid(self):
        return self.child.pid

    def children(self):
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except OSError:
            return []

    def stop(self, seconds=5):
        if self.child.poll() is None:
            children = self.children()
            self.child.terminate()
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                for pid in [self.pid] + children:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.child.wait()
        if self in Process.everyone:
            Process.everyone.remove(self)

    @classmethod
    def stop_all(cls):
        for process in reversed(list(cls.everyone)):
            process.stop(seconds=1)


def memory(pid):
    """VmRSS of a process and its parts, VmHWM: kilobytes by name (proc(5))."""
    wanted = ("VmRSS", "VmHWM", "RssAnon", "RssShmem", "RssFile")
    with open(f"/proc/{pid}/status") as lines:
        pairs = (line.split(":") for line in lines)
        return {name: int(value.split()[0]) for name, value in pairs if name in wanted}


def proportional(pids):
    """Kilobytes several processes hold together, what they share counted once (Pss; proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as lines:
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def reset_peak(pid):
    """Starts VmHWM over (proc(5), clear_refs)."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


class Registry:
    """docker-registry on plain HTTP, so that neither side of a figure pays for TLS."""

    def __init__(self):
        self.directory = os.path.join(WORK, "registry")
        os.makedirs(self.directory, exist_ok=True)
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        config = os.path.join(WORK, "registry.json")
        with open(config, "w") as file:
            json.dump({"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
                       "storage": {"filesystem": {"rootdirectory": self.directory}},
                       "http": {"addr": self.host, "secret": "bench"}}, file)
        self.process = Process(["docker-registry", "serve", config], os.path.join(WORK, "registry.log"))
        until(20, "docker-registry listens", lambda: accepts(self.port))

    def manifest(self, name):
        return json.loads(run("curl", "-sf", "-H", "Accept: application/vnd.oci.image.manifest.v1+json",
                              f"http://{self.host}/v2/{name}/manifests/1"))

    def layer(self, name, kind):
        """Descriptor of the first layer whose media type holds `kind`."""
        return next(layer for layer in self.manifest(name)["layers"] if kind in layer["mediaType"])

    def url(self, name, descriptor, port=None):
        return f"http://127.0.0.1:{port or self.port}/v2/{name}/blobs/{descriptor['digest']}"

    def data_file(self, descriptor):
        digest = descriptor["digest"].split(":")[1]
        return f"{self.directory}/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"

    def warm(self, descriptor):
        """Has the blob in the page cache: the registry's disk is no part of a figure."""
        run("dd", f"if={self.data_file(descriptor)}", "of=/dev/null", "bs=1M", "status=none")

    def chunks(self, name):
        """The blob's chunks as (start, end) in the raw blob, from its .caibx (docs/formats/image.md)."""
        raw = subprocess.run(["curl", "-sf", self.url(name, self.layer(name, ".caibx"))], check=True,
                             stdout=subprocess.PIPE).stdout
        ends = [int.from_bytes(raw[at:at + 8], "little") for at in range(64, len(raw) - 40, 40)]
        return list(zip([0] + ends[:-1], ends))


class DelayProxy:
    """Adds microseconds to every request to the registry."""

    def __init__(self, registry, microseconds):
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.process = Process([os.path.join(BIN, "delay_proxy"), str(self.port), str(registry.port),
                                str(microseconds)], os.path.join(WORK, "proxy.log"))
        until(10, "the proxy listens", lambda: accepts(self.port))


class Node:
    """chunkgate and chunkd with an empty cache, and chunkctl against them."""

    count = 0

    def __init__(self, hosts, settings=()):
        Node.count += 1
        self.directory = os.path.join(WORK, f"node-{Node.count}")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.state, self.sockets = self.directory + "/state", self.directory + "/run"
        self.mounts = self.directory + "/mnt"
        for path in (self.state, self.mounts):
            os.makedirs(path)
        self.config = self.directory + "/config.yaml"
        lines = [f"stateDir: {self.state}", f"runDir: {self.sockets}",
                 f"metrics: {{address: \"127.0.0.1:{free_port()}\"}}", "hydrate: {enabled: false}", *settings,
                 "registries:"]
        for host in hosts:
            lines.append(f"  \"{host}\": {{plainHTTP: true}}")
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")
        options = run(PROGRAMS + "/chunkctl", "gate-options", "--config", self.config).split()
        self.gate = Process([PROGRAMS + "/chunkgate", *options],
                            self.directory + "/gate.log")
        until(20, "chunkgate starts", lambda: os.path.exists(self.sockets + "/gate.sock"))
        self.agent = Process([PROGRAMS + "/chunkd", "--config", self.config], self.directory + "/agent.log")
        until(20, "chunkd reaches chunkgate", self._connected)

    def _connected(self):
        done = subprocess.run([PROGRAMS + "/chunkctl", "stat", "-o", "json", "--config", self.config],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.returncode == 0 and json.loads(done.stdout)["gateConnected"]

    def control(self, *arguments):
        return run(PROGRAMS + "/chunkctl", *arguments, "--config", self.config)

    def stat(self):
        return json.loads(self.control("stat", "-o", "json"))

    def fetched_chunks(self):
        return sum(source["chunks"] for source in self.stat()["sources"])

    def mount(self, reference):
        target = f"{self.mounts}/{len(os.listdir(self.mounts))}"
        os.mkdir(target)
        self.control("mount", reference, target)
        return target

    def gate_pids(self):
        """The keeper and its child."""
        return [self.gate.pid] + self.gate.children()

    def close(self):
        """Unmounts, stops and removes everything."""
        for point in mounts_beneath(self.mounts):
            subprocess.run(["umount", "-l", point], check=False)
        self.agent.stop()
        self.gate.stop()
        for point in mounts_beneath(self.directory):
            subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
