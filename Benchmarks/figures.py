"""How each figure of the table is measured: beside its floor, in the same run, medians of several rounds."""

import json
import os
import statistics
import subprocess
import time

from rig import BIN, WORK, DelayProxy, Node, Process, memory, mounts_beneath, proportional, reset_peak, run, say, settle, until

ROUNDS = 3
# Of the figures whose floor is a registry's answers, which swing from second to second.
MANY_ROUNDS = 7
MEBIBYTE = 1 << 20


def median(values):
    return statistics.median(values)


def timed_shell(command):
    """Seconds a shell pipeline takes; every part of it must succeed."""
    start = time.monotonic()
    run("bash", "-o", "pipefail", "-c", command)
    return time.monotonic() - start


def reader(*arguments, cpu=None):
    pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
    return json.loads(run(*pinned, os.path.join(BIN, "reader"), *arguments))


class Bench:
    def __init__(self, registry):
        self.registry = registry
        self.rows = []
        self.details = {}

    def row(self, name, measured, unit, target, holds, **details):
        """One line of the table."""
        text = f"{measured:.2f}" if isinstance(measured, float) else str(measured)
        self.rows.append({"name": name, "measured": measured, "text": f"{text}{unit}", "target": target,
                          "holds": bool(holds), "details": details})
        say(f"   {name}: {text}{unit} (target {target})  {json.dumps(details)}")

    # ------------------------------------------------------------------------------------------------ images

    def image(self, name, make, *options):
        """Builds and pushes an image of a tree that `make` fills; once."""
        tree = os.path.join(WORK, "trees", name)
        os.makedirs(tree)
        make(tree)
        with Node([self.registry.host]) as node:
            node.control("image", "build", tree, f"{self.registry.host}/{name}:1", *options)
        run("rm", "-rf", tree)

    def reference(self, name, host=None):
        return f"{host or self.registry.host}/{name}:1"

    # --------------------------------------------------------------------------------- cold sequential reads

    def cold_sequential(self, name, host=None):
        """One cold read of the image's file `data`: MB/s, and chunkd's peak memory meanwhile in kilobytes."""
        self.registry.warm(self.registry.layer(name, ".blob."))
        with Node([host or self.registry.host]) as node:
            mount = node.mount(self.reference(name, host))
            os.sync()
            reset_peak(node.agent.pid)
            result = reader("sequential", mount + "/data")
            peak = memory(node.agent.pid)
            stat = node.stat()
            assert stat["integrity"]["selfEvents"] == 0, "self-events"
        return result["mb_per_s"], peak

    def sequential(self):
        raw, packed = self.registry.layer("raw", ".blob."), self.registry.layer("zstd", ".blob.")
        size = 512 * MEBIBYTE
        pipes = {"raw": (raw, "openssl dgst -sha256"), "zstd": (packed, "zstd -dc | openssl dgst -sha256")}
        peaks = []
        for name, target in (("raw", 1.0), ("zstd", 0.8)):
            ours, floors = [], []
            descriptor, pipe = pipes[name]
            for _ in range(MANY_ROUNDS):
                speed, peak = self.cold_sequential(name)
                ours.append(speed)
                peaks.append(peak)
                settle()
                self.registry.warm(descriptor)
                floors.append(size / 1e6 / timed_shell(f"curl -sf {self.registry.url(name, descriptor)} | {pipe}"))
            ratio = median(ours) / median(floors)
            self.row(f"cold sequential read, {name} blob ÷ curl into {pipe.replace(' | ', ' into ')}", ratio, "", f"≥ {target}", ratio >= target,
                     ours_mb_s=ours, floor_mb_s=floors)
        self.cold_peaks = peaks

    def delayed(self):
        """The same with 10 ms on each request; and that the proxy itself is no bottleneck."""
        descriptor = self.registry.layer("raw", ".blob.")
        size = descriptor["size"]
        direct, through, ours, floors = [], [], [], []
        plain, slow = DelayProxy(self.registry, 0), DelayProxy(self.registry, 10_000)

        def curls(port):
            part = size // 8
            ranges = [(n * part, size - 1 if n == 7 else (n + 1) * part - 1) for n in range(8)]
            url = self.registry.url("raw", descriptor, port)
            calls = " & ".join(f"curl -sf -o /dev/null -r {a}-{b} {url}" for a, b in ranges)
            return size / 1e6 / timed_shell(f"{calls} & wait")

        for _ in range(MANY_ROUNDS):
            ours.append(self.cold_sequential("raw", slow.host)[0])
            settle()
            self.registry.warm(descriptor)
            floors.append(curls(slow.port))
            direct.append(curls(self.registry.port))
            through.append(curls(plain.port))
        for proxy in (plain, slow):
            proxy.process.stop()
        ratio = median(ours) / median(floors)
        self.row("cold sequential read, 10 ms a request ÷ 8 parallel ranged curls", ratio, "", "≥ 0.5", ratio >= 0.5,
                 ours_mb_s=ours, floor_mb_s=floors, curls_direct_mb_s=direct, curls_by_proxy_without_delay_mb_s=through)

    # --------------------------------------------------------------------------------------------- random reads

    def cold_random(self):
        """One 4 KiB read in each of 200 chunks ÷ a ranged curl of each of those chunks on one kept connection."""
        chunks = self.registry.chunks("raw")[1::max(1, len(self.registry.chunks("raw")) // 200)][:200]
        offsets = os.path.join(WORK, "offsets")
        with open(offsets, "w") as file:
            file.write("\n".join(str((a + b) // 2 // 4096 * 4096) for a, b in chunks))
        descriptor = self.registry.layer("raw", ".blob.")
        url = self.registry.url("raw", descriptor)
        config = os.path.join(WORK, "curl.config")
        with open(config, "w") as file:
            parts = [f'url = "{url}"\nrange = "{a}-{b - 1}"\noutput = "/dev/null"\nwrite-out = "%{{time_total}}\\n"\n'
                     "silent\nfail\n" for a, b in chunks]
            file.write("next\n".join(parts))
        ours, floors, fetched, inside = [], [], [], []
        for number in range(MANY_ROUNDS):
            self.registry.warm(descriptor)
            with Node([self.registry.host]) as node:
                mount = node.mount(self.reference("raw"))
                ours.append(reader("chunks", mount + "/data", number, offsets)["p50_us"])
                fetched.append(node.fetched_chunks())
                stat = node.stat()
                inside.append({"miss_p50_us": 1e6 * stat["reads"]["missP50Seconds"],
                               "range_p50_us": 1e6 * stat["sources"][0]["p50Seconds"]})
            times = sorted(float(line) * 1e6 for line in run("curl", "-K", config).split())
            floors.append(times[len(times) // 2])
        ratio = median(ours) / median(floors)
        self.row("cold random 4 KiB read, p50 ÷ ranged curl of that chunk", ratio, "", "≤ 1.5", ratio <= 1.5,
                 ours_us=ours, floor_us=floors, chunks_read=len(chunks), chunks_fetched=fetched, as_chunkd_saw_it=inside)

    def resident_random(self):
        """With the mark on and all data here: chunkgate ÷ a C loop that answers ALLOW and nothing else.

        Both serve the same bytes: the floor mounts copies of the gate's own bootstrap and backing file. Reader and
        server are pinned, once to one processor (where every instruction of the server counts) and once to two.
        """
        # Without reading ahead, or chunkd would fetch the file that is never read, and the mark would go.
        with Node([self.registry.host], ["readAhead: {windowMax: 0}"]) as node:
            mount = node.mount(self.reference("resident"))
            reader("sequential", mount + "/data")
            image = node.stat()["images"][0]
            assert not image["blobs"][0]["graduated"], "the image is complete, so its mark is off"
            copies = os.path.join(WORK, "floor")
            os.makedirs(copies + "/mnt")
            boot = run("find", node.state + "/gate/images", "-name", "bootstrap.erofs").split()[0]
            data = run("find", node.state + "/gate/blobs", "-name", "data").split()[0]
            run("cp", "--sparse=always", boot, copies + "/boot")
            run("cp", "--sparse=always", data, copies + "/data")
            floor = Process([os.path.join(BIN, "floor_gate"), copies + "/boot", copies + "/data", copies + "/mnt"],
                            copies + "/log")
            until(10, "the floor mounts", lambda: mounts_beneath(copies + "/mnt"))
            bound = {}
            try:
                for where, server_cpu in (("same", 0), ("other", 1)):
                    for pid in [*node.gate_pids(), floor.pid]:
                        run("taskset", "-a", "-p", "-c", server_cpu, pid)
                    ours, floors = [], []
                    before = node.stat()["reads"]
                    # The backing files are cached alike: one read of each through its mount warms them.
                    for target in (mount, copies + "/mnt"):
                        reader("sequential", target + "/data")
                    for number in range(2 * ROUNDS + 1):
                        ours.append(reader("random", mount + "/data", 20000, number, cpu=0))
                        floors.append(reader("random", copies + "/mnt/data", 20000, number, cpu=0))
                    after = node.stat()["reads"]
                    assert after["misses"] == before["misses"], "a resident read missed"
                    assert after["events"] - before["events"] >= 20000, "reads raised no events"
                    bound[where] = {"ours_us": [r["mean_us"] for r in ours], "floor_us": [r["mean_us"] for r in floors]}
            finally:
                floor.stop()
                for point in mounts_beneath(copies):
                    subprocess.run(["umount", "-l", point], check=False)
                run("rm", "-rf", copies)
        ratios = {where: median(v["ours_us"]) / median(v["floor_us"]) for where, v in bound.items()}
        self.row("resident random 4 KiB read ÷ bare C event loop, one processor", ratios["same"], "", "≤ 1.1",
                 ratios["same"] <= 1.1, **bound["same"])
        self.row("resident random 4 KiB read ÷ bare C event loop, two processors", ratios["other"], "", "≤ 1.1",
                 ratios["other"] <= 1.1, **bound["other"])

    # ------------------------------------------------------------------------------------------ counts, memory, time

    def graduated(self):
        with Node([self.registry.host]) as node:
            mount = node.mount(self.reference("raw"))
            reader("sequential", mount + "/data")
            until(60, "the blob graduates", lambda: node.stat()["graduatedBlobs"] == 1)
            before = node.stat()["reads"]["events"]
            settle()
            reader("sequential", mount + "/data")
            reader("random", mount + "/data", 20000, 1)
            events = node.stat()["reads"]["events"] - before
        self.row("upcalls on a graduated blob (512 MiB sequential, 20,000 random reads)", events, "", "0", events == 0)

    def one_file(self):
        with Node([self.registry.host]) as node:
            mount = node.mount(self.reference("gibibyte"))
            reader("sequential", mount + "/small-50")
            chunks, fetched = node.fetched_chunks(), node.stat()["bytesFetched"]
        self.row("chunks fetched to read one 64 KiB file out of a 1 GiB image", chunks, "", "≤ 2", chunks <= 2,
                 bytes_fetched=fetched)

    def memories(self):
        with Node([self.registry.host]) as node:
            idle = [memory(node.agent.pid)]
            for number in range(100):
                node.mount(self.reference(f"small-{number}"))
            # The keeper gives its code back when it has had nothing to do for a second.
            time.sleep(2)
            parts = {name: memory(pid) for name, pid in zip(("keeper", "working process"), node.gate_pids())}
            together = proportional(node.gate_pids()) / 1024
        resident = sum(part["VmRSS"] for part in parts.values()) / 1024
        self.row("memory of chunkgate, both processes, 100 images mounted", resident, " MiB", "≤ 16 MiB", resident <= 16,
                 kilobytes=parts, proportional_mib=together)
        for _ in range(ROUNDS - 1):
            with Node([self.registry.host]) as node:
                idle.append(memory(node.agent.pid))
        resting = median([part["VmRSS"] for part in idle]) / 1024
        self.row("memory of chunkd, idle", resting, " MiB", "≤ 48 MiB", resting <= 48, kilobytes=idle)
        peak = max(part["VmHWM"] for part in self.cold_peaks) / 1024
        self.row("memory of chunkd, peak during the cold sequential reads", peak, " MiB", "≤ 128 MiB", peak <= 128,
                 kilobytes=self.cold_peaks)

    def mount_time(self):
        times = []
        for _ in range(2 * ROUNDS - 1):
            with Node([self.registry.host]) as node:
                target = node.mounts + "/timed"
                os.mkdir(target)
                settle()
                # The programs' own pages are back: a node has them in memory.
                node.control("version")
                start = time.monotonic()
                node.control("mount", self.reference("files"), target)
                times.append((time.monotonic() - start) * 1000)
        self.row("chunkctl mount, 10,000 files, nothing cached", median(times), " ms", "≤ 250 ms",
                 median(times) <= 250, milliseconds=times)
