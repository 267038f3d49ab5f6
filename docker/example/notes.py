#!/usr/bin/env python3
"""Keeps notes in SQLite. The same program on each node of a cluster:

    curl http://a:8080/                    all notes
    curl -L -d 'buy milk' http://b:8080/   one more; a replica sends the client on to the primary
"""

import argparse
import http.server
import os
import sqlite3
import sys

NOTE_SIZE_MAX = 10000


class Handler(http.server.BaseHTTPRequestHandler):
    database = ""
    port = 0

    def primary(self):
        """Name of the primary, or None when it is this node: then there is no such file."""
        try:
            with open(os.path.join(os.path.dirname(self.database), ".primary"), encoding="utf-8") as file:
                return file.read().strip()
        except FileNotFoundError:
            return None

    def query(self, statement, arguments=()):
        connection = sqlite3.connect(self.database, timeout=10)
        try:
            with connection:
                return connection.execute(statement, arguments).fetchall()
        finally:
            connection.close()

    def answer(self, code, text, headers=()):
        body = text.encode()
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        try:
            rows = self.query("SELECT text FROM note ORDER BY id")
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error) and "unable to open" not in str(error):
                self.answer(503, f"{error}\n")
                return
            rows = []
        self.answer(200, "".join(f"{text}\n" for (text,) in rows))

    def do_POST(self):
        primary = self.primary()
        if primary is not None:
            self.answer(307, f"{primary} is the primary\n", [("Location", f"http://{primary}:{self.port}{self.path}")])
            return
        size = int(self.headers.get("Content-Length", 0))
        if size > NOTE_SIZE_MAX:
            self.answer(413, f"a note has at most {NOTE_SIZE_MAX} bytes\n")
            return
        text = self.rfile.read(size).decode(errors="replace")
        try:
            self.query("CREATE TABLE IF NOT EXISTS note(id INTEGER PRIMARY KEY, text TEXT)")
            self.query("INSERT INTO note(text) VALUES (?)", (text,))
        except sqlite3.OperationalError as error:
            self.answer(503, f"{error}\n")  # there is no primary at the moment, or another one since
            return
        self.answer(201, "kept\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True)
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    Handler.database = options.database
    Handler.port = options.port
    http.server.ThreadingHTTPServer(("", options.port), Handler).serve_forever()


if __name__ == "__main__":
    sys.exit(main())
