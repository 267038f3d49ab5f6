"""The primary's machine loses its power, and with it the end of a WAL that nobody had synced (L5)."""

import contextlib
import json
import os
import signal
import sqlite3

import harness

NAME = "app.db"
ROWS = 200


class PowerLossTest(harness.ClusterTest):
    def lose_power(self, node, keep):
        """Kills the daemon; the first `keep` (0 to 1) of the WAL's bytes stay, and the machine has another boot."""
        os.kill(node.daemon(), signal.SIGKILL)
        node.wait_end()
        wal = os.path.join(node.data, "files", NAME + "-wal")
        os.truncate(wal, int(os.path.getsize(wal) * keep))
        path = os.path.join(node.data, "node.json")
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        state["boot_id"] = "another boot"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(state, file)

    def test_l5_what_the_wal_lost_is_redone_from_the_log(self):
        cluster = self.cluster()
        node = cluster.primary
        connection = node.connect(NAME)
        for pragma in ("journal_mode=wal", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            connection.execute("PRAGMA " + pragma)
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        for _ in range(ROWS):
            connection.execute("INSERT INTO t(v) VALUES (randomblob(500))")
        cluster.wait_positions()
        self.lose_power(node, keep=0.5)
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        node.clear_mount_point()
        node.start()
        for reader in cluster.nodes:
            harness.wait_for(lambda reader=reader: reader.status()["log"] == node.status()["log"], "the same log")
            self.assertEqual(reader.execute(NAME, "SELECT count(*) FROM t"), [(ROWS,)], reader.name)
        self.assertNotIn("as they are", node.log_text())
        cluster.wait_converged()
