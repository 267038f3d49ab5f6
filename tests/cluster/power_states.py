"""What a power loss can leave of a node's data directory.

A node runs with storage_recorder preloaded; its record and a copy of the directory from before the start (Disk) tell
what the directory could have been after a power loss at any moment. Rules, those of POSIX at its strictest:

- What was written, cut or extended in a file before a sync of that file began is there once that sync has ended;
- a name that was made, taken away or changed in a directory, once a sync of that directory has ended. Syncing a file
  does not keep its name;
- anything later may be there or not: of the writes each by itself, torn at 512 bytes; what changes the size of a file
  in order with what was written after it; the changes of one directory in their order.

An inode is what it is, whatever its names are: what is unlinked and not synced comes back with its content.
"""

import json
import os
import random
import shutil
import stat
import struct

HEADER = struct.Struct("=IIQQII")
MAGIC = 0x31434552
CREATE, WRITE, TRUNCATE, REMOVE, RENAME, MAKE_DIRECTORY, SYMLINK, LINK, SYNC_BEGIN, SYNC_END = range(1, 11)
SECTOR = 512
VARIANTS = ("synced", "random", "all")


def count_before(pending, number):
    """How many of these changes, which are in order, came before the operation of this number."""
    return next((i for i, change in enumerate(pending) if change[0] >= number), len(pending))


class File:
    """A regular file, or a symlink, whose content never changes."""

    def __init__(self, mode, content=b"", target=None):
        self.mode = mode
        self.target = target
        self.durable = bytearray(content)
        self.pending = []  # (number of the operation, offset, bytes), or (number, size, None) for a new size

    def settle(self, number):
        """What was done before this operation is on disk."""
        count = count_before(self.pending, number)
        for _, offset, data in self.pending[:count]:
            apply_change(self.durable, offset, data)
        del self.pending[:count]

    def content(self, choice):
        content = bytearray(self.durable)
        for offset, data in choice.changes(self.pending):
            apply_change(content, offset, data)
        return content


class Directory:
    def __init__(self, mode):
        self.mode = mode
        self.durable = {}
        self.names = {}  # as they are without a power loss
        self.pending = []  # (number of the operation, name, inode or None)

    def set(self, number, name, inode):
        self.pending.append((number, name, inode))
        set_name(self.names, name, inode)

    def settle(self, number):
        count = count_before(self.pending, number)
        for _, name, inode in self.pending[:count]:
            set_name(self.durable, name, inode)
        del self.pending[:count]

    def content(self, choice):
        names = dict(self.durable)
        for _, name, inode in self.pending[:choice.names(self.pending)]:
            set_name(names, name, inode)
        return names


def apply_change(content, offset, data):
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset:offset + len(data)] = data


def set_name(names, name, inode):
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


class Synced:
    """Nothing but what was synced."""

    def changes(self, _):
        return ()

    def names(self, _):
        return 0


class All:
    """As after SIGKILL."""

    def changes(self, pending):
        return [change[1:] for change in pending]

    def names(self, pending):
        return len(pending)


class Random:
    """Some of it. Each file and directory may also have lost everything or nothing."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def changes(self, pending):
        kept = self.random.choice((0, 1, 0.5, self.random.random()))
        for _, offset, data in pending:
            if self.random.random() >= kept:
                if data is None:
                    return  # later changes of a file wait for one of its size
                continue
            if data is not None and self.random.random() < 0.1:
                yield from self.torn(offset, data)
            else:
                yield offset, data

    def torn(self, offset, data):
        at = 0
        while at < len(data):
            size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
            if self.random.random() < 0.5:
                yield offset + at, data[at:at + size]
            at += size

    def names(self, pending):
        return self.random.choice((0, len(pending), self.random.randint(0, len(pending))))


def choice_of(variant, seed):
    return {"synced": Synced, "all": All}[variant]() if variant != "random" else Random(seed)


class Disk:
    """A directory as it is now, all of it durable, and then what a record does to it."""

    def __init__(self, directory):
        self.directory = directory
        self.inodes = {}  # by number, of those that have a name or are open
        self.number = 0
        self.begun = {}  # syncs: the number of the operation with which they began
        self.root = self._load(directory)

    def _load(self, path):
        st = os.lstat(path)
        if stat.S_ISDIR(st.st_mode):
            inode = Directory(stat.S_IMODE(st.st_mode))
            for name in os.listdir(path):
                if not stat.S_ISSOCK(os.lstat(os.path.join(path, name)).st_mode):
                    inode.names[name] = self._load(os.path.join(path, name))
            inode.durable = dict(inode.names)
        elif stat.S_ISLNK(st.st_mode):
            inode = File(0, target=os.readlink(path))
        elif st.st_ino in self.inodes:
            return self.inodes[st.st_ino]
        else:
            with open(path, "rb") as file:
                inode = File(stat.S_IMODE(st.st_mode), file.read())
        self.inodes[st.st_ino] = inode
        return inode

    def _parent(self, path):
        parts = os.path.relpath(path, self.directory).split("/")
        directory = self.root
        for part in parts[:-1]:
            directory = directory.names[part]
        return directory, parts[-1]

    def _add(self, path, number, inode):
        self.inodes[number] = inode
        directory, name = self._parent(path)
        directory.set(self.number, name, inode)

    def apply(self, record):
        """The next record of the run."""
        self.number += 1
        kind, inode, value, first, second = record
        if kind == CREATE:
            self._add(first.decode(), inode, File(value & 0o777))
        elif kind == MAKE_DIRECTORY:
            self._add(first.decode(), inode, Directory(0o755))
        elif kind == SYMLINK:
            self._add(first.decode(), inode, File(0, target=second.decode()))
        elif kind == WRITE:
            self.inodes[inode].pending.append((self.number, value, first))
        elif kind == TRUNCATE:
            self.inodes[inode].pending.append((self.number, value, None))
        elif kind == SYNC_BEGIN:
            self.begun[value] = self.number
        elif kind == SYNC_END:
            self.inodes[inode].settle(self.begun.pop(value))
        else:
            self._change_name(kind, first.decode(), second.decode())

    def _change_name(self, kind, path, other):
        directory, name = self._parent(path)
        inode = directory.names.get(name)
        if inode is None:
            assert name.endswith(".sock") or other.endswith(".sock"), f"{path} is not known"
            return  # a socket
        if kind != REMOVE:
            other_directory, other_name = self._parent(other)
            other_directory.set(self.number, other_name, inode)
        if kind != LINK:
            directory.set(self.number, name, None)

    def write(self, directory, variant, seed=0):
        """Makes `directory`, which is empty, what a power loss now could leave."""
        self._write(self.root, directory, choice_of(variant, seed), {})

    def _write(self, inode, path, choice, written):
        if isinstance(inode, Directory):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, inode.mode)
            for name, child in sorted(inode.content(choice).items()):
                self._write(child, os.path.join(path, name), choice, written)
        elif inode.target is not None:
            os.symlink(inode.target, path)
        elif inode in written:
            os.link(written[inode], path)
        else:
            written[inode] = path
            with open(path, "wb") as file:
                file.write(inode.content(choice))
            os.chmod(path, inode.mode)


def read_records(path):
    """(size of the record file after it, record) of each; a last one that is not whole is left away."""
    with open(path, "rb") as file:
        while True:
            header = file.read(HEADER.size)
            if len(header) < HEADER.size:
                return
            magic, kind, inode, value, first_size, second_size = HEADER.unpack(header)
            assert magic == MAGIC, f"{path} is no record"
            first = file.read(first_size)
            second = file.read(second_size)
            if len(first) + len(second) < first_size + second_size:
                return
            yield file.tell(), (kind, inode, value, first, second)


def make_state(disk, data, variant, seed=0):
    """Makes the data directory what a power loss now could leave of the disk, for a node that then starts anew."""
    shutil.rmtree(data)
    disk.write(data, variant, seed)
    path = os.path.join(data, "node.json")
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        state = json.load(file)
    state["boot_id"] = "another boot"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(state, file)
