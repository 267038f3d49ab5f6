"""An application that opens a database and changes rows, again and again without a pause, until SIGTERM.

    impatient.py DATABASE

Says that it begins, and at its end how many transactions were committed.
"""

import contextlib
import signal
import sqlite3
import sys

stopped = False


def stop(*_):
    global stopped
    stopped = True


def main():
    signal.signal(signal.SIGTERM, stop)
    committed = 0
    print("begins", flush=True)
    while not stopped:
        with contextlib.suppress(sqlite3.Error), \
                contextlib.closing(sqlite3.connect(f"file:{sys.argv[1]}?mode=rw", uri=True, timeout=0,
                                                   isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE t SET x = 'impatient' WHERE id % 20 = 3")
            connection.execute("COMMIT")
            committed += 1
    print(committed)


if __name__ == "__main__":
    main()
