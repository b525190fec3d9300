/// The program behind `FaultyDisk`. Arguments: the medium (a file), the file to mount the disk on, a directory in which
/// it is told what to do, a seed.
let faultyDiskProgram = #"""
    # A disk as the one file of a FUSE file system, for a loop device. What is written stays in a volatile cache until
    # it is flushed. When the power goes, a random part of the cached sectors reaches the medium (out of order, torn
    # in mid-write), and nothing answers any more. Protocol: linux/fuse.h, version 7.31.
    import ctypes, errno, os, random, struct, sys
    medium, target, control, seed = sys.argv[1:5]
    SECTOR, MAX_WRITE = 512, 128 << 10
    disk = os.open(medium, os.O_RDWR)
    size = os.fstat(disk).st_size
    cache, commands, is_off, chance = {}, 0, False, random.Random(int(seed))

    def setting(name):
        try:
            with open(control + "/" + name) as file: return file.read().strip()
        except FileNotFoundError: return None

    def count():
        """One write or flush more. After the last that the power is to last for, it goes when there is something to
        lose; with 0 at once."""
        global commands, is_off
        limit = setting("power")
        if limit is None or is_off: return
        commands += 1
        if commands <= int(limit) or int(limit) > 0 and not cache: return
        is_off = True
        kept, share = 0, chance.random()
        for offset, sector in cache.items():
            if chance.random() < share:
                os.pwrite(disk, sector, offset)
                kept += 1
        with open(control + "/off.new", "w") as file: file.write("%d %d %d" % (commands - 1, len(cache), kept))
        os.rename(control + "/off.new", control + "/off")
        cache.clear()

    def check(kind):
        if kind == "write": count()
        if is_off or kind in (setting("fail") or "").split(): raise OSError(errno.EIO, "the disk says no")

    def read(offset, length):
        check("read")
        data = bytearray(os.pread(disk, length, offset))
        for at in range(offset, offset + len(data), SECTOR):
            if at in cache: data[at - offset:at - offset + SECTOR] = cache[at]
        return bytes(data)

    def write(offset, data):
        check("write")
        for at in range(0, len(data), SECTOR): cache[offset + at] = bytes(data[at:at + SECTOR])

    def flush():
        check("write")
        for offset, sector in cache.items(): os.pwrite(disk, sector, offset)
        cache.clear()

    def answer(opcode, body):
        if opcode == 26:  # INIT
            major, minor, ahead, flags = struct.unpack_from("<IIII", body)
            return struct.pack("<IIIIHHIIHHI28x", 7, min(minor, 31), ahead, 1 << 5, 16, 12, MAX_WRITE, 1, 0, 0, 0)
        if opcode == 3:  # GETATTR
            return struct.pack(
                "<QII6Q10I", 1, 0, 0, 1, size, size >> 9, 0, 0, 0, 0, 0, 0, 0o100600, 1, 0, 0, 0, 4096, 0)
        if opcode == 14: return struct.pack("<QII", 0, 1, 0)  # OPEN: past the page cache
        if opcode == 15:  # READ
            return read(*struct.unpack_from("<8xQI", body))
        if opcode == 16:  # WRITE
            offset, length = struct.unpack_from("<8xQI", body)
            write(offset, body[40:40 + length])
            return struct.pack("<II", length, 0)
        if opcode == 20: return flush() or b""  # FSYNC
        if opcode in (18, 25, 38): return b""  # RELEASE, FLUSH (of a descriptor), DESTROY
        raise OSError(errno.ENOSYS, "not needed")

    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"fd=%d,rootmode=100000,user_id=0,group_id=0" % device
    if libc.mount(b"chunkd-test-disk", target.encode(), b"fuse", 0, options) != 0:
        sys.exit("mount: " + os.strerror(ctypes.get_errno()))
    while True:
        try: request = os.read(device, MAX_WRITE + 4096)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EAGAIN): continue
            sys.exit(0)  # unmounted
        length, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode in (2, 36, 42): continue  # FORGET, INTERRUPT, BATCH_FORGET want no answer
        code, out = 0, b""
        try: out = answer(opcode, request[40:])
        except OSError as error: code = -error.errno
        try: os.write(device, struct.pack("<IiQ", 16 + len(out), code, unique) + out)
        except OSError as error:
            if error.errno != errno.ENOENT: raise  # who asked was killed meanwhile
    """#
