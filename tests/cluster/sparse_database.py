"""A big, valid SQLite database that takes hardly any space: all but its first pages are free pages, which are holes."""

import contextlib
import sqlite3
import struct

PAGE_SIZE = 65536  # the largest
LOCK_PAGE = 0x40000000 // PAGE_SIZE + 1
LEAVES = PAGE_SIZE // 4 - 8  # as many free pages as SQLite lists on one trunk page


def write_sparse_database(path, scratch, size):
    """With an empty table t(id INTEGER PRIMARY KEY, x). `scratch` is a file name for the small database that the big
    one begins with; `path` is written as `cp --sparse` would, its header first."""
    with contextlib.closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    with open(scratch, "rb") as file:
        used = bytearray(file.read())
    pages = size // PAGE_SIZE
    free = [page for page in range(len(used) // PAGE_SIZE + 1, pages + 1) if page != LOCK_PAGE]
    trunks = [free[at:at + LEAVES + 1] for at in range(0, len(free), LEAVES + 1)]
    struct.pack_into(">III", used, 28, pages, trunks[0][0], len(free))
    with open(path, "wb") as file:
        file.write(used)
        for trunk, following in zip(trunks, [*trunks[1:], [0]]):
            file.seek((trunk[0] - 1) * PAGE_SIZE)
            file.write(struct.pack(f">II{len(trunk) - 1}I", following[0], len(trunk) - 1, *trunk[1:]))
        file.truncate(pages * PAGE_SIZE)
