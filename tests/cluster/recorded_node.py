"""Nodes that run on a recorded disk (power_states.py), for tests in which the power goes."""

import contextlib
import fcntl
import os

from power_states import Disk, make_state, read_records

PRELOAD = os.environ["ECHOFS_STORAGE_RECORDER"]


class RecordedDisk:
    """The disk of a harness.Node, from now on. The node must not run; it is recorded whenever it starts."""

    def __init__(self, node):
        self.node = node
        self.prefix = list(node.prefix)
        self.path = os.path.join(node.directory, "storage.record")
        self.disk = None
        node.kill_moment = self.between_operations
        self.begin()

    @contextlib.contextmanager
    def between_operations(self):
        """No operation is under way that the record does not have yet: a moment to kill the node."""
        with open(self.path, "rb") as record:
            fcntl.flock(record, fcntl.LOCK_EX)
            yield

    def begin(self):
        """Records from here on: all that is in the directory is on disk."""
        self.disk = Disk(self.node.data)
        if os.path.exists(self.path):
            os.remove(self.path)
        with open(self.path, "wb"):
            pass
        self.node.prefix = [*self.prefix, "env", f"LD_PRELOAD={PRELOAD}", f"ECHOFS_RECORD={self.path}",
                            f"ECHOFS_RECORD_ROOT={self.node.data}"]

    def end(self):
        """The next start is not recorded. The record stays."""
        self.node.prefix = self.prefix

    def states(self, positions):
        """(position, disk) at each of these sizes of the record, which ascend; the disk is good until the next one."""
        records = read_records(self.path)
        record = next(records, None)
        for position in positions:
            while record is not None and record[0] <= position:
                self.disk.apply(record[1])
                record = next(records, None)
            yield position, self.disk

    def lose_power(self, variant, seed=0):
        """The daemon has been killed: the directory is now what the disk has, after another start of the machine. Goes
        on recording."""
        for _, disk in self.states([os.path.getsize(self.path)]):
            make_state(disk, self.node.data, variant, seed)
        self.begin()
