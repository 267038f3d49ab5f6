"""What is in a database, as one hash: SQLite's dbhash, computed in a connection of ours.

Debian does not package the dbhash program, so this is its algorithm (tool/dbhash.c), with the same result.
"""

import contextlib
import hashlib
import struct


class Text(bytes):
    """A value of type TEXT, as it is in the database; a BLOB is plain bytes."""


def encode(value):
    if value is None:
        return b"0"
    if isinstance(value, int):
        return b"1" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"2" + struct.pack(">d", value)
    return (b"3" if isinstance(value, Text) else b"4") + value


def hash_rows(digest, rows):
    for row in rows:
        digest.update(b"".join(map(encode, row)))


def hash_tables(digest, connection, condition):
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE "
                               f"'CREATE VIRTUAL%' AND {condition} ORDER BY name COLLATE nocase").fetchall()
    for (name,) in names:
        quoted = name.decode().replace('"', '""')
        hash_rows(digest, connection.execute(f'SELECT * FROM "{quoted}"'))


def dbhash(connection):
    """What `dbhash` prints for the database."""
    digest = hashlib.sha1()
    hash_tables(digest, connection, "name NOT LIKE 'sqlite_%'")
    hash_rows(digest, connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema "
                                         "ORDER BY name COLLATE nocase"))
    return digest.hexdigest()


def internal_hash(connection):
    """Of what dbhash leaves out: sqlite_sequence, sqlite_stat1 and the like."""
    digest = hashlib.sha1()
    hash_tables(digest, connection, "name LIKE 'sqlite_%'")
    return digest.hexdigest()


def read_database(connection):
    """(integrity check, dbhash, internal_hash) in one transaction."""
    with contextlib.closing(connection):
        connection.text_factory = Text
        connection.execute("BEGIN")
        check = connection.execute("PRAGMA integrity_check").fetchall()
        return (b"; ".join(row[0] for row in check).decode(), dbhash(connection),
                internal_hash(connection))
