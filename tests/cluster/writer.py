"""A writer for the cluster tests: commits one row after the other until SIGTERM.

    writer.py DATABASE RECORD MODE [SYNCHRONOUS [PAUSE]]

PAUSE is the time between two commits in seconds, so that what is written stays within bounds. The id of a row goes to the file RECORD once its COMMIT has returned. Errors are said on stderr, and
survived: the connection is closed, and opened again until that works. It never creates the database.
"""

import os
import signal
import sqlite3
import sys
import time

stopped = False


def stop(*_):
    global stopped
    stopped = True


def filler(row):
    return "x" * (100 + row * 7919 % 4000)


def open_database(path, mode, synchronous):
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10,
                                 isolation_level=None)
    try:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("CREATE TABLE IF NOT EXISTS written(id INTEGER PRIMARY KEY, filler TEXT)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def write(connection, record, pause):
    while not stopped:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM written").fetchone()[0]
        connection.execute("INSERT INTO written VALUES (?, ?)", (row, filler(row)))
        connection.execute("COMMIT")
        os.write(record, b"%d\n" % row)
        if pause:
            time.sleep(pause)


def main():
    path, record_path, mode = sys.argv[1:4]
    synchronous = sys.argv[4] if len(sys.argv) > 4 else "NORMAL"
    pause = float(sys.argv[5]) if len(sys.argv) > 5 else 0
    signal.signal(signal.SIGTERM, stop)
    record = os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    said = None
    while not stopped:
        connection = None
        try:
            connection = open_database(path, mode, synchronous)
            said = None
            write(connection, record, pause)
        except (sqlite3.Error, OSError) as error:
            if str(error) != said:
                print(f"error: {error}", file=sys.stderr, flush=True)
            said = str(error)
            time.sleep(0.01)
        finally:
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error:
                    pass


if __name__ == "__main__":
    main()
