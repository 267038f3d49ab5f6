"""A reader for the cluster tests: reads the table `written` of a database again and again until SIGTERM.

    reader.py DATABASE RECORD

A read is one transaction that looks at the newest rows and at as many anywhere in the table, so that it costs the
same however much was written. Each that went well adds the id of the last row to the file RECORD, a line each. What
a writer can never have committed (a hole, a row of the wrong size) ends it with exit code 3, damage with exit code 4. Other
errors are said on stderr and survived.
"""

import os
import random
import signal
import sqlite3
import sys
import time

ROWS = 300  # that are looked at together

stopped = False
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def stop(*_):
    global stopped
    stopped = True


def check_rows(connection, first, last):
    count, wrong = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE length(filler) != 100 + id * 7919 % 4000) FROM written "
        "WHERE id BETWEEN ? AND ?", (first, last)).fetchone()
    if count != last - first + 1 or wrong:
        print(f"{count} rows from {first} to {last}, {wrong} are wrong", file=sys.stderr, flush=True)
        sys.exit(3)


def read(connection, record):
    while not stopped:
        connection.execute("BEGIN")
        last = connection.execute("SELECT coalesce(max(id), 0) FROM written").fetchone()[0]
        for end in (last, random.randint(min(last, ROWS), last)):
            check_rows(connection, max(1, end - ROWS + 1), end)
        connection.execute("COMMIT")
        os.write(record, b"%d\n" % last)
        time.sleep(0.001)


def main():
    path, record_path = sys.argv[1:3]
    signal.signal(signal.SIGTERM, stop)
    record = os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    said = None
    while not stopped:
        connection = None
        try:
            connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10,
                                         isolation_level=None)
            read(connection, record)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xff in DAMAGE:
                print(f"damage: {error}", file=sys.stderr, flush=True)
                sys.exit(4)
            if str(error) != said:
                print(f"error: {error}", file=sys.stderr, flush=True)
            said = str(error)
            time.sleep(0.01)
        finally:
            if connection is not None:
                connection.close()


if __name__ == "__main__":
    main()
