"""An application on one node of a cluster, for the failover tests: commits whenever its node is the primary.

    client.py DATABASE RECORD NAME [SYNCHRONOUS]

Each transaction adds a number of its own to the table `acked` and moves money between two accounts. The number and the
time (CLOCK_MONOTONIC, seconds) go to the file RECORD once COMMIT has returned; a process that finds such a file goes on
with higher numbers. SQLITE_BUSY is tried again on the same
connection after a moment, for ever. Another error is said on stderr, the connection is opened again, and the number
is not used again: the transaction may have been committed.
"""

import datetime
import os
import random
import signal
import sqlite3
import sys
import time

stopped = False
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def stop(*_):
    global stopped
    stopped = True


def set_synchronous(connection, synchronous):
    """A replica in a rollback mode may be applying at this moment."""
    while not stopped:
        try:
            connection.execute(f"PRAGMA synchronous={synchronous}")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xff not in BUSY:
                raise
            time.sleep(0.002)


def commit(connection, name, number):
    """True when it was committed, False when the database is busy."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xff in BUSY:
            return False
        raise
    try:
        amount, source, target = random.randint(1, 50), *random.sample(range(1, 101), 2)
        connection.execute("INSERT INTO acked VALUES (?, ?)", (name, number))
        connection.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, source))
        connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
        connection.execute("COMMIT")
        return True
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xff not in BUSY:
            raise
        connection.execute("ROLLBACK")
        return False


def main():
    path, record_path, name = sys.argv[1:4]
    synchronous = sys.argv[4] if len(sys.argv) > 4 else "NORMAL"
    signal.signal(signal.SIGTERM, stop)
    record = os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    number = 1
    with open(record_path, encoding="utf-8") as lines:
        for line in lines:  # of an earlier process, which may have used some more without an answer
            number = int(line.split()[0]) + 100_000
    said = None
    while not stopped:
        connection = None
        try:
            connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=0,
                                         isolation_level=None)
            set_synchronous(connection, synchronous)
            while not stopped:
                if commit(connection, name, number):
                    os.write(record, b"%d %.6f\n" % (number, time.monotonic()))
                    number += 1
                    said = None
                    time.sleep(0.001)
                else:
                    time.sleep(0.002)
        except (sqlite3.Error, OSError) as error:
            number += 1
            if str(error) != said:
                print(f"{datetime.datetime.now(datetime.timezone.utc):%H:%M:%S.%f} number {number - 1}: {error} "
                      f"{getattr(error, 'sqlite_errorname', '')}", file=sys.stderr, flush=True)
            said = str(error)
            time.sleep(0.02)
        finally:
            if connection is not None:
                try:
                    connection.close()
                except sqlite3.Error:
                    pass


if __name__ == "__main__":
    main()
