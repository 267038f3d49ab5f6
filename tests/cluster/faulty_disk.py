"""Makes operations of a node on its disk fail, and counts them (fault_preload.cc)."""

import errno
import mmap
import os
import struct

READ, WRITE, TRUNCATE, SYNC, REMOVE = 1, 2, 4, 8, 16
ALL = READ | WRITE | TRUNCATE | SYNC | REMOVE
CONTROL = struct.Struct("5i512s64s")


class FaultyDisk:
    """Makes operations of a node on its data directory fail, by fault_preload.cc."""

    def __init__(self, path, node):
        self.node = node
        self.k = 0
        with open(path, "wb") as file:
            file.write(bytes(CONTROL.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), CONTROL.size)
        node.prefix = ["env", f"LD_PRELOAD={os.environ['ECHOFS_FAULT_PRELOAD']}", f"ECHOFS_TEST_FAULTS={path}"]

    def fail(self, k, kinds=ALL, error=errno.EIO, suffix="", forever=False):
        """The k-th operation of these kinds from now on, on files whose names end in `suffix`."""
        self.heal()
        self.k = k
        self.memory[:] = CONTROL.pack(0, k, error, int(forever), 0, self.node.data.encode(), suffix.encode())
        self.memory[:4] = struct.pack("i", kinds)

    def heal(self):
        self.memory[:4] = struct.pack("i", 0)

    @property
    def failed(self):
        return struct.unpack("i", self.memory[16:20])[0]

    @property
    def counted(self):
        """How many operations of these kinds there were since fail(), for a k that is out of reach."""
        k, = struct.unpack("i", self.memory[4:8])
        return self.k - k
