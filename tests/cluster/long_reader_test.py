"""A reader on the replica that stays in its transaction while the primary commits and checkpoints (A2, A3)."""

import os
import statistics
import time

import harness

COMMITS = harness.scaled(20_000, 200_000)
LOOKS = 40  # at least; a checkpoint on the primary at every third
SETTLED_LAG = 4000  # entries; below this, the lag of two times is not compared
NAME = "app.db"


class LongReaderTest(harness.ClusterTest):
    def start(self):
        cluster = self.cluster()
        writer = self.writer(cluster.primary.path(NAME), "wal", pause=0.0002)  # lets checkpoints in
        cluster.primary.execute(NAME, "PRAGMA journal_mode=wal", "CREATE TABLE changing(n, filler)",
                                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 100) "
                                "INSERT INTO changing SELECT 0, randomblob(1000) FROM c")
        writer.start().wait_commits(50)
        cluster.wait_for_databases([NAME])
        harness.wait_for(lambda: cluster.replica.execute(NAME, "SELECT 1 FROM sqlite_schema WHERE name = 'written'"),
                         "the table on the replica")
        # From here on `changing` is in the main file and not in the WAL.
        self.wait_until_restarted(cluster, writer, self.wal_salts(cluster))
        return cluster, writer

    def wal_salts(self, cluster):
        with open(os.path.join(cluster.replica.data, "files", NAME + "-wal"), "rb") as file:
            return file.read(24)[16:]

    def wait_until_restarted(self, cluster, writer, salts):
        """Until the replica's WAL has been started anew since it had these salts."""
        def restarted():
            writer.wait_records(100)
            return self.wal_salts(cluster) != salts

        harness.wait_for(restarted, "the WAL to be started anew")

    def wait_until_seen(self, writer, connection):
        """How long after its COMMIT returned the newest commit is seen at most, in seconds."""
        before = writer.record_count()
        looked = time.monotonic()
        while writer.record_count() == before:
            looked = time.monotonic()
            writer.assert_alive()
            time.sleep(0.001)
        newest = writer.record_count()  # rows are numbered from 1 on, and this is the only writer
        harness.wait_for(lambda: connection.execute("SELECT max(id) FROM written").fetchone()[0] >= newest,
                         f"row {newest} on the replica, in a connection beside the reader that stays")
        return time.monotonic() - looked

    def lag(self, cluster):
        """Entries of the primary's log that the replica has not applied; too many rather than too few."""
        applied = cluster.replica.databases()[NAME]["applied_index"]
        return max(0, cluster.primary.status()["log"]["index"] - applied)

    def check_lag_is_flat(self, lags):
        quarter = len(lags) // 4
        first, last = statistics.median(lags[:quarter]), statistics.median(lags[-quarter:])
        print(f"lag in entries: median of the first quarter {first:.0f}, of the last {last:.0f}, most {max(lags)}")
        # It would be seven times as large if it grew evenly.
        self.assertLessEqual(last, max(SETTLED_LAG, 3 * first), lags)

    def test_a2_a3_reader_stays_while_the_primary_commits_and_checkpoints(self):
        cluster, writer = self.start()
        old = cluster.replica.connect(NAME)
        old.execute("PRAGMA cache_size=1")  # it asks the file system again each time
        old.execute("BEGIN")
        question = "SELECT (SELECT sum(n) FROM changing), count(*), max(id), total(length(filler)) FROM written"
        before = old.execute(question).fetchall()
        new = cluster.replica.connect(NAME)
        salts = self.wal_salts(cluster)
        on_primary = cluster.primary.connect(NAME)
        checkpointer = cluster.primary.connect(NAME, timeout=0.1)
        begin = writer.record_count()
        complete, delays, lags = 0, [], []
        while len(delays) < LOOKS or writer.record_count() < begin + COMMITS:
            on_primary.execute("UPDATE changing SET n = n + 1")
            delays.append(self.wait_until_seen(writer, new))
            self.assertEqual(old.execute(question).fetchall(), before)
            lags.append(self.lag(cluster))
            if len(delays) % 3 == 0:
                kind = ("TRUNCATE", "RESTART", "FULL")[len(delays) // 3 % 3]
                busy = checkpointer.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()[0]
                complete += not busy
        print(f"{writer.record_count() - begin} commits, {complete} checkpoints; {len(delays)} looked at: seen after "
              f"{statistics.median(delays) * 1000:.1f} ms (median), {max(delays) * 1000:.1f} ms (worst)")
        self.assertGreater(complete, 0)
        self.check_lag_is_flat(lags)
        self.assertEqual(old.execute(question).fetchall(), before)
        self.assertEqual(self.wal_salts(cluster), salts, "the WAL was started anew under a reader that uses it")
        old.execute("COMMIT")
        self.check_wal_is_reclaimed(cluster, writer, salts)
        changes, rows = old.execute(question).fetchone()[:2]
        self.assertEqual(changes, 100 * len(delays))
        self.assertGreater(rows, before[0][1] + COMMITS)
        for connection in (old, new, on_primary, checkpointer):
            connection.close()
        writer.stop()
        cluster.wait_converged()
        writer.check(cluster.replica, NAME)

    def check_wal_is_reclaimed(self, cluster, writer, salts):
        wal = os.path.join(cluster.replica.data, "files", NAME + "-wal")
        grown = os.path.getsize(wal)
        print(f"the replica's WAL grew to {grown >> 20} MiB")
        self.wait_until_restarted(cluster, writer, salts)
        grown = os.path.getsize(wal)
        for _ in range(10):
            writer.wait_records(300)
        self.assertLessEqual(os.path.getsize(wal), grown, "the WAL grows without a reader")
