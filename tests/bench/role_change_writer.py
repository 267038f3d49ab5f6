"""Commits to the table t of a database whenever that is possible, looking every millisecond; for role_changes.py.

    role_change_writer.py DATABASE RECORD

The moment of each commit that returned, CLOCK_MONOTONIC in seconds, goes to the file RECORD.
"""

import contextlib
import os
import sqlite3
import sys
import time

RETRY_SECONDS = 0.001
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def write(path, record):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=0,
                                            isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=NORMAL")
        while True:
            try:
                connection.execute("INSERT INTO t(v) VALUES (randomblob(100))")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xff not in BUSY:
                    raise
            else:
                os.write(record, b"%.6f\n" % time.monotonic())
            time.sleep(RETRY_SECONDS)


def main():
    record = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        # The node is gone; it comes back.
        with contextlib.suppress(sqlite3.Error, OSError):
            write(sys.argv[1], record)
        time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main()
