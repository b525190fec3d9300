"""A cluster of real nodes as `cluster/up` makes it, and what the figures ask of it."""

import glob
import json
import os
import re
import shutil
import subprocess
import threading
import time

import rig

SCRIPTS = os.path.join(rig.TOP, "cluster")
# Of its own, so that a cluster of somebody else's is never taken down; cluster/up refuses while there is one.
DIRECTORY = "/var/tmp/chunkd-bench-cluster"
REGISTRY = "10.77.0.2:5000"
MEBIBYTE = 1 << 20
# One reader: waits for the word, mounts, reads to the end, says when.
READER = """read -r _
"$1" mount "$2" "$3" --config "$4" >/dev/null
mounted=$EPOCHREALTIME
dd if="$3/data" of=/dev/null bs=1M status=none
echo "$mounted $EPOCHREALTIME"
"""


def cpu_seconds(pid):
    """CPU seconds of a process so far (proc(5), utime and stime)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Reader(threading.Thread):
    """One node's mount and read, from the word on."""

    def __init__(self, command):
        # Whoever is interrupted does not wait for it: its shell ends with this program's end of the pipe.
        super().__init__(daemon=True)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.output = self.error = ""
        self.word = threading.Event()

    def run(self):
        self.word.wait()
        try:
            self.output, self.error = self.process.communicate("\n", timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.output, self.error = self.process.communicate()
            self.error += "not done in 120 seconds"


class Cluster:
    def __init__(self, count):
        self.nodes = list(range(1, count + 1))
        self.sources = os.path.join(rig.WORK, "sources")
        self.images = {}
        os.makedirs(self.sources, exist_ok=True)
        self.address_of = {f"10.77.0.{10 + node}": node for node in self.nodes}
        try:
            self.script("up", count)
        except rig.Failed:
            # It has taken down itself what it had begun.
            raise
        except BaseException:
            self.script("down")
            raise

    @staticmethod
    def script(name, *arguments):
        environment = {"CHUNKD_PROGRAMS": rig.PROGRAMS, "CHUNKD_CLUSTER_DIR": DIRECTORY}
        rig.run(f"{SCRIPTS}/{name}", *arguments, env=os.environ | environment, timeout=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.script("down")

    def directory(self, node):
        return f"{DIRECTORY}/n{node}"

    def control(self, node, *arguments):
        return rig.run(f"{SCRIPTS}/exec", node, *arguments, timeout=120)

    def stat(self, node):
        return json.loads(self.control(node, "stat", "-o", "json"))

    def peers(self, node):
        return json.loads(self.control(node, "peers", "-o", "json"))["peers"]

    def library(self, script):
        """Runs what needs cluster/lib.sh itself."""
        rig.run("bash", "-euo", "pipefail", "-c",
                f'. "{SCRIPTS}/lib.sh"; PROGRAMS=$(programs_directory); {script}', timeout=120)

    def rates(self, registry, between):
        """Limits the registry's link and each node's, both ways; `off` lifts it."""
        links = [f"limit_link chunkd-reg {registry}"] + [f"limit_link chunkd-n{n} {between}" for n in self.nodes]
        self.library("; ".join(links))

    def metric(self, node, name):
        """A counter of a node without labels."""
        text = rig.run("nsenter", f"--net=/run/netns/chunkd-n{node}", "curl", "-sf",
                       f"http://10.77.0.{10 + node}:4711/metrics")
        return sum(int(float(line.split()[1])) for line in text.splitlines() if line.split(" ")[0] == name)

    def verified(self, node, name):
        """Whether all that is on a node's disk of an image is as it should be (chunkctl verify hashes it)."""
        done = subprocess.run([f"{SCRIPTS}/exec", str(node), "verify", f"{REGISTRY}/{name}:1"], timeout=120,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        return done.returncode == 0

    def data_file(self, node, name):
        """Where a node keeps an image's data: the file beneath the mount, which the figure of liars writes into."""
        size = self.raw_size(name)
        found = [path for path in glob.glob(f"{self.directory(node)}/state/gate/blobs/*/data")
                 if os.path.getsize(path) == size]
        if len(found) != 1:
            raise rig.Failed(f"node {node} has {len(found)} data files of {size} bytes")
        return found[0]

    # ------------------------------------------------------------------------------------------------- images

    def build(self, name, size, write):
        """Pushes an image of one file, `data`, and keeps the file to compare with."""
        tree = f"{self.sources}/{name}"
        os.makedirs(tree)
        write(f"{tree}/data", size)
        self.control(1, "image", "build", tree, f"{REGISTRY}/{name}:1")
        self.images[name] = json.loads(rig.run(
            "nsenter", "--net=/run/netns/chunkd-reg", "curl", "-sf", "-H",
            "Accept: application/vnd.oci.image.manifest.v1+json", f"http://{REGISTRY}/v2/{name}/manifests/1"))
        # The registry's disk is no part of a figure.
        for path in self.registry_files(name):
            rig.run("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")

    def registry_files(self, name):
        """Where the registry keeps an image's layers and config; not its manifest."""
        manifest = self.images[name]
        for descriptor in [manifest["config"], *manifest["layers"]]:
            digest = descriptor["digest"].split(":")[1]
            yield f"{DIRECTORY}/registry/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"

    def hide(self, name):
        """Takes an image's layers and config from the registry: what remains is its manifest."""
        for path in self.registry_files(name):
            os.rename(path, path + ".hidden")

    def show(self, name):
        for path in self.registry_files(name):
            os.rename(path + ".hidden", path)

    def transferred(self, name):
        """Bytes of an image as transferred: all its layers and its config."""
        manifest = self.images[name]
        return manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])

    def data_layer(self, name):
        return next(layer for layer in self.images[name]["layers"] if ".blob." in layer["mediaType"])

    def raw_size(self, name):
        layer = self.data_layer(name)
        return int(layer.get("annotations", {}).get("dev.chunkd.blob.raw-size", layer["size"]))

    def mount_point(self, node, name):
        return f"{self.directory(node)}/mnt/{name}"

    def reader(self, node, name):
        target = self.mount_point(node, name)
        os.makedirs(target)
        return Reader([
            "nsenter", f"--net=/run/netns/chunkd-n{node}", "bash", "-euc", READER, "reader",
            f"{rig.PROGRAMS}/chunkctl", f"{REGISTRY}/{name}:1", target, f"{self.directory(node)}/config.yaml"])

    def read_at_once(self, nodes, name):
        """All these nodes mount and read in the same instant; seconds of each until mounted and until read."""
        readers = [self.reader(node, name) for node in nodes]
        for reader in readers:
            reader.start()
        start = time.time()
        for reader in readers:
            reader.word.set()
        for reader in readers:
            reader.join()
        failed = [(node, reader.error) for node, reader in zip(nodes, readers) if reader.process.returncode]
        if failed:
            raise rig.Failed(f"node {failed[0][0]} could not read {name}: {failed[0][1]}")
        times = [[float(word) - start for word in reader.output.split()] for reader in readers]
        return [mounted for mounted, _ in times], [read for _, read in times]

    def mount(self, node, name):
        target = self.mount_point(node, name)
        os.makedirs(target)
        self.control(node, "mount", f"{REGISTRY}/{name}:1", target)

    def read(self, node, name):
        """Seconds to read all of it."""
        start = time.monotonic()
        rig.run("dd", f"if={self.mount_point(node, name)}/data", "of=/dev/null", "bs=1M", "status=none", timeout=120)
        return time.monotonic() - start

    def wrong_bytes(self, nodes, name):
        """How many bytes differ from the source, over all these nodes; what is read is what the readers were given."""
        count = 0
        for node in nodes:
            files = [f"{self.sources}/{name}/data", self.mount_point(node, name) + "/data"]
            compared = subprocess.run(["cmp", "-l", *files], timeout=120, check=False,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if compared.returncode > 1 or compared.stderr:
                raise rig.Failed(f"node {node}: {compared.stderr.decode()}")
            count += compared.stdout.count(b"\n")
        return count

    def drop(self, nodes, name):
        """Unmounts an image and removes it from these nodes; its source too."""
        for node in nodes:
            self.control(node, "umount", self.mount_point(node, name))
            self.control(node, "gc")
        shutil.rmtree(f"{self.sources}/{name}", ignore_errors=True)
        rig.settle()

    # --------------------------------------------------------------------------------------------- accounting

    def log_size(self):
        return os.path.getsize(f"{DIRECTORY}/registry.log")

    def registry_log(self, since, name):
        """Bytes the registry says it has sent of an image's layers and config, by node and digest, since an offset."""
        digests = {layer["digest"] for layer in self.images[name]["layers"] + [self.images[name]["config"]]}
        line = re.compile(r'^(\S+) \S+ \S+ \[[^]]*\] "GET \S+/blobs/(sha256:[0-9a-f]{64})\S* HTTP/1.1" (20[06]) (\d+)')
        with open(f"{DIRECTORY}/registry.log", encoding="utf-8", errors="replace") as file:
            file.seek(since)
            matches = [match for match in map(line.match, file) if match and match[2] in digests]
        sent = {}
        for match in matches:
            key = self.address_of.get(match[1].rsplit(":", 1)[0], match[1]), match[2]
            sent[key] = sent.get(key, 0) + int(match[4])
        return sent

    def registry_stat(self, nodes):
        """Bytes these nodes say they have fetched from the registry."""
        return sum(source["bytes"] for node in nodes for source in self.stat(node)["sources"]
                   if source["source"].startswith("registry/"))

    def processes(self):
        """Process ids by what they are: registry, gates, agents."""
        found = {"registry": [], "gate": [], "agent": []}
        names = [("registry", "registry")]
        names += [(kind, f"n{node}/{kind}") for node in self.nodes for kind in ("gate", "agent")]
        for kind, name in names:
            with open(f"{DIRECTORY}/{name}.pid") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                found[kind] += [pid] + [int(word) for word in file.read().split()]
        return found

    def cpu(self):
        """CPU seconds so far of every kind of process, and of the whole machine (user, system, interrupts)."""
        used = {kind: sum(map(cpu_seconds, pids)) for kind, pids in self.processes().items()}
        with open("/proc/stat") as file:
            fields = [int(word) for word in file.readline().split()[1:]]
        names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")
        by_name = dict(zip(names, fields))
        tick = os.sysconf("SC_CLK_TCK")
        used["machine"] = sum(by_name[name] for name in names if name not in ("idle", "iowait")) / tick
        used["machine_interrupts"] = (by_name["irq"] + by_name["softirq"]) / tick
        return used


def difference(after, before):
    return {name: round(after[name] - before[name], 2) for name in after}

