"""A writer for the power loss tests: commits one after the other until SIGTERM.

    power_writer.py DATABASE RECORD DISK_RECORD MODE SYNCHRONOUS

Each transaction adds a row with the next id, and 1 to each of three counters, so that many pages change. Once COMMIT
has returned, its id and the size that DISK_RECORD has by then go to RECORD: with FULL, who loses the power later has
the row. With MODE "churn" DATABASE is a directory, and what is written are short-lived databases in it, in new
directories now and then; RECORD gets lines "made NAME SIZE" after its commit, "ends NAME SIZE" before a database is
deleted, and "gone NAME SIZE" when its directory has been synced after that. Errors are said on stderr, and survived.
"""

import os
import random
import signal
import sqlite3
import sys
import time

COUNTERS = 60
stopped = False


def stop(*_):
    global stopped
    stopped = True


def filler(row):
    return "x" * (100 + row * 7919 % 3000)


def open_database(path, mode, synchronous):
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    for pragma in (f"journal_mode={mode}", f"synchronous={synchronous}", "wal_autocheckpoint=20", "cache_size=10"):
        connection.execute("PRAGMA " + pragma)
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        connection.execute("CREATE TABLE written(id INTEGER PRIMARY KEY, filler TEXT)")
        connection.execute("CREATE TABLE counter(id INTEGER PRIMARY KEY, value INTEGER, filler TEXT)")
        connection.executemany("INSERT INTO counter VALUES (?, 0, ?)", [(i, "c" * 700) for i in range(COUNTERS)])
    connection.execute("COMMIT")
    return connection


def commit(connection):
    connection.execute("BEGIN IMMEDIATE")
    row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM written").fetchone()[0]
    connection.execute("INSERT INTO written VALUES (?, ?)", (row, filler(row)))
    connection.executemany("UPDATE counter SET value = value + 1 WHERE id = ?",
                           [(i,) for i in random.sample(range(COUNTERS), 3)])
    connection.execute("COMMIT")
    return row


def write(path, mode, synchronous, say):
    connection = open_database(path, mode, synchronous)
    try:
        while not stopped:
            say(commit(connection))
    finally:
        connection.close()


def churn(directory, synchronous, say):
    alive = []
    for number in range(1_000_000):
        if stopped:
            return
        below = f"{number // 5}"
        os.makedirs(os.path.join(directory, below), exist_ok=True)
        name = f"{below}/{number}.db"
        mode = ("wal", "delete", "truncate", "persist")[number % 4]
        connection = open_database(os.path.join(directory, name), mode, synchronous)
        for _ in range(3):
            commit(connection)
        say(f"made {name}")
        connection.close()
        alive.append(name)
        if len(alive) > 2:
            gone = alive.pop(0)
            say(f"ends {gone}")
            path = os.path.join(directory, gone)
            for suffix in ("-journal", "-wal", "-shm", ""):
                if os.path.exists(path + suffix):
                    os.remove(path + suffix)
            descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            say(f"gone {gone}")


def main():
    path, record_path, disk_record, mode, synchronous = sys.argv[1:]
    signal.signal(signal.SIGTERM, stop)
    record = os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def say(what):
        os.write(record, f"{what} {os.stat(disk_record).st_size}\n".encode())

    while not stopped:
        try:
            if mode == "churn":
                churn(path, synchronous, say)
            else:
                write(path, mode, synchronous, say)
        except (sqlite3.Error, OSError) as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
