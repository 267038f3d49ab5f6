"""Applications for the cluster tests that check what must hold in every state of a database.

    ring.py DATABASE RECORD write MODE              makes the tables first
    ring.py DATABASE RECORD write                   they are there
    ring.py DATABASE RECORD read [KEY=VALUE ...]    open=ro, mmap=BYTES, reopen=1 (a connection for each read),
                                                    hold=SECONDS (how long a read transaction lasts)

Table `account`: transfers keep the sum. Table `ring`: moving a member keeps it one cycle. Each commit, or read
that went well, adds a line to the file RECORD, until SIGTERM. An error of SQLite's ends the program with exit
code 5, a state that must not be with exit code 3: nothing is survived here.
"""

import os
import random
import signal
import sqlite3
import sys
import time

ACCOUNTS = 100
BALANCE = 1000
MEMBERS = 60
BUSY_SECONDS = 60

stopped = False


def stop(*_):
    global stopped
    stopped = True


def create(connection, mode):
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, filler)")
    connection.execute("CREATE INDEX account_balance ON account(balance)")
    connection.execute("CREATE TABLE ring(id INTEGER PRIMARY KEY, next INTEGER, filler)")
    connection.executemany("INSERT INTO account VALUES (?, ?, randomblob(150))",
                           [(i, BALANCE) for i in range(ACCOUNTS)])
    connection.executemany("INSERT INTO ring VALUES (?, ?, randomblob(300))",
                           [(i, (i + 1) % MEMBERS) for i in range(MEMBERS)])
    connection.execute("COMMIT")


def change(connection):
    connection.execute("BEGIN IMMEDIATE")
    amount, source, target = random.randrange(100), random.randrange(ACCOUNTS), random.randrange(ACCOUNTS)
    connection.execute("UPDATE account SET balance = balance - ?, filler = randomblob(150) WHERE id = ?",
                       (amount, source))
    connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, target))
    following = dict(connection.execute("SELECT id, next FROM ring"))
    mover = random.randrange(MEMBERS)
    before = next(member for member, after in following.items() if after == mover)
    place = random.choice([member for member in following if member not in (mover, before)])
    # Out of its place, and in again behind `place`.
    connection.execute("UPDATE ring SET next = ? WHERE id = ?", (following[mover], before))
    connection.execute("UPDATE ring SET next = ?, filler = randomblob(300) WHERE id = ?",
                       (following[place], mover))
    connection.execute("UPDATE ring SET next = ? WHERE id = ?", (mover, place))
    connection.execute("COMMIT")


def wrong(*what):
    print(*what, file=sys.stderr, flush=True)
    sys.exit(3)


def check(connection, hold):
    connection.execute("BEGIN")
    for _ in range(2):
        for source in ("account NOT INDEXED", "account INDEXED BY account_balance"):
            found = connection.execute(f"SELECT count(*), sum(balance) FROM {source}").fetchone()
            if found != (ACCOUNTS, ACCOUNTS * BALANCE):
                wrong("accounts", source, found)
        following = dict(connection.execute("SELECT id, next FROM ring"))
        member, steps = 0, 0
        while steps < MEMBERS:
            member, steps = following[member], steps + 1
            if member == 0:
                break
        if (member, steps, len(following)) != (0, MEMBERS, MEMBERS):
            wrong("ring", member, steps, following)
        if not hold:
            break
        time.sleep(hold)  # the application's think time, within its transaction
    connection.execute("COMMIT")


def connect(path, options):
    mode = options.get("open", "rw")
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True, timeout=BUSY_SECONDS,
                                 isolation_level=None)
    if "mmap" in options:
        connection.execute(f"PRAGMA mmap_size={options['mmap']}")
    return connection


def run(path, record, role, arguments):
    if role == "write":
        writer = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        if arguments:
            create(writer, *arguments)
        writer.execute("PRAGMA synchronous=OFF")
        while not stopped:
            change(writer)
            os.write(record, b"1\n")
        writer.close()
        return
    options = dict(argument.split("=") for argument in arguments)
    connection = None
    while not stopped:
        if connection is None:
            connection = connect(path, options)
        check(connection, float(options.get("hold", 0)))
        os.write(record, b"1\n")
        if options.get("reopen"):
            connection.close()
            connection = None


def main():
    path, record_path, role = sys.argv[1:4]
    signal.signal(signal.SIGTERM, stop)
    record = os.open(record_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        run(path, record, role, sys.argv[4:])
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        print(f"error: {error} {name}", file=sys.stderr, flush=True)
        sys.exit(5)


if __name__ == "__main__":
    main()
