"""What the tests of the ports have in common."""

import json
import os

from processes import wait_for

NAME = "app.db"


class Replicated:
    """A database whose rows are looked for on the replicas."""

    def __init__(self, primary, replicas):
        self.primary = primary
        self.replicas = replicas
        self.rows = 0
        primary.execute(NAME, "PRAGMA journal_mode=wal", "CREATE TABLE t(x)")

    def write(self):
        """One more row, which has to arrive everywhere."""
        self.rows += 1
        self.primary.execute(NAME, f"INSERT INTO t VALUES ({self.rows})")
        for node in self.replicas:
            wait_for(lambda node=node: self.seen(node) == self.rows, f"row {self.rows} on {node.name}")

    def seen(self, node):
        if not os.path.exists(node.path(NAME)):
            return None
        return node.execute(NAME, "SELECT max(x) FROM t")[0][0]


def write_config(directory, settings):
    path = os.path.join(directory, "echofs.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return path


def warnings_with(node, words):
    return [line for line in node.log_text().splitlines() if words in line and " debug " not in line]


def cluster_id(node):
    with open(os.path.join(node.data, "node.json"), encoding="utf-8") as file:
        return json.load(file)["cluster_id"]
