"""SIGKILL of the daemon or of the guardian, at full write load, again and again.

Looked for: a process that hangs in D state, a mount that stays, a node that does not recover, a
transaction that is gone although its COMMIT returned, an application that cannot go on.
"""

import os
import signal
import statistics
import time

import harness

ROUNDS = 5
DATABASES = {"wal.db": ("wal", "NORMAL"), "full.db": ("wal", "FULL"),
             "delete.db": ("delete", "NORMAL"), "persist.db": ("persist", "OFF")}
MOUNT_GONE_SECONDS = 1.0


class SigkillTest(harness.ClusterTest):
    def start_load(self, cluster):
        """Writers in the primary's mount and readers in both."""
        writers = {}
        for name, (mode, synchronous) in DATABASES.items():
            cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "CREATE TABLE first(x)")
            writers[name] = self.writer(cluster.primary.path(name), mode, synchronous).start()
        cluster.wait_for_databases(DATABASES)
        readers = [self.reader(node.path(name)).start()
                   for node in cluster.nodes for name in ("wal.db", "delete.db")]
        return writers, readers

    def kill(self, node, pid, applications):
        """Kills, and sees that the mount goes and that nobody hangs; after how many seconds it was gone."""
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        harness.wait_for(lambda: not harness.is_mounted(node.mount), "the mount to be gone")
        took = time.monotonic() - killed
        code = node.wait_end()
        self.assertEqual(code, -signal.SIGKILL if pid == node.guardian_before else
                         128 + signal.SIGKILL)
        processes = [application.process.pid for application in applications]

        def nobody_hangs():
            return not any("D" in harness.thread_states(pid) for pid in processes)

        # A state of D for a moment is a disk at work; one that stays is a hang.
        harness.wait_for(nobody_hangs, "the applications to leave D state")
        for application in applications:
            self.assertIsNone(application.process.poll(),
                              f"an application died: {application.log_text()}")
        return took

    def run_rounds(self, victim, part):
        cluster = self.cluster()
        writers, readers = self.start_load(cluster)
        node = cluster.primary if victim == "primary" else cluster.replica
        gone_after = []
        for round_number in range(ROUNDS):
            harness.wait_all_records([*writers.values(), *readers], 3 + 5 * round_number)
            daemon = node.daemon()
            node.guardian_before = node.guardian
            gone_after.append(self.kill(node, daemon if part == "daemon" else node.guardian,
                                        [*writers.values(), *readers]))
            harness.wait_for(lambda: not harness.thread_states(daemon), "the daemon's end")
            node.clear_mount_point()
            node.start()
        harness.wait_all_records([*writers.values(), *readers], 5)
        for application in (*readers, *writers.values()):
            application.stop()
        print(f"the mount was gone after {[round(took, 3) for took in gone_after]} s")
        # The median: a moment in which the machine does something else is nobody's fault.
        self.assertLess(statistics.median(gone_after), MOUNT_GONE_SECONDS, gone_after)
        self.assertEqual(sorted(cluster.wait_converged()), sorted(DATABASES))
        for name, writer in writers.items():
            writer.check(cluster.primary, name)
            writer.check(cluster.replica, name)

    def test_primary_daemon(self):
        self.run_rounds("primary", "daemon")

    def test_primary_guardian(self):
        self.run_rounds("primary", "guardian")

    def test_replica_daemon(self):
        self.run_rounds("replica", "daemon")

    def test_replica_guardian(self):
        self.run_rounds("replica", "guardian")
