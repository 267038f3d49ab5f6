"""A commit that waits for a replica costs no thread, and waiting commits share syncs (D1)."""

import os
import resource
import signal
import sqlite3
import threading

import members
from faulty_disk import SYNC, FaultyDisk
from processes import WAIT_SECONDS, wait_for

WRITERS = 1000
FDATASYNC = ("74", "75")  # numbers of fsync and fdatasync in /proc/PID/task/TID/syscall, x86-64


def in_fsync():
    """How many threads of this process are inside fsync or fdatasync."""
    count = 0
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/syscall", encoding="ascii") as file:
            count += file.read().split()[0] in FDATASYNC
    return count


def thread_count(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


class Writer(threading.Thread):
    """Commits one row in a database of its own when it is told to."""

    def __init__(self, connection, go):
        super().__init__()
        self.connection = connection
        self.go = go
        self.outcome = None

    def run(self):
        self.go.wait()
        try:
            self.connection.execute("INSERT INTO t VALUES (1)")
            self.outcome = "OK"
        except sqlite3.Error as error:
            self.outcome = str(error)


class WaitingWritersTest(members.MembersTest):
    def open_databases(self, leader, suffix, mode):
        connections = []
        for number in range(WRITERS):
            connection = leader.connect(f"{number}{suffix}.db", check_same_thread=False)
            self.addCleanup(connection.close)
            for statement in (f"PRAGMA journal_mode={mode}", "PRAGMA synchronous=NORMAL", "CREATE TABLE t(x)",
                              "PRAGMA synchronous=FULL"):
                connection.execute(statement)
            connections.append(connection)
        return connections

    def start_writers(self, connections):
        go = threading.Event()
        threading.stack_size(1 << 20)
        self.addCleanup(threading.stack_size, 0)
        writers = [Writer(connection, go) for connection in connections]
        for writer in writers:
            writer.start()
        return go, writers

    def sync_something_else(self, connection, path):
        """What waits for nobody is answered meanwhile: a commit in NORMAL, and the sync of a file of another kind."""
        connection.execute("INSERT INTO t VALUES (1)")
        with open(path, "w", encoding="utf-8") as file:
            file.write("text")
            file.flush()
            os.fsync(file.fileno())

    def test_d1_a_thousand_waiting_writers_cost_no_threads(self):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        cluster = self.members(count=2, min_sync_replicas=1, never="b", ack_timeout=2 * WAIT_SECONDS, start=False)
        leader, replica = cluster.nodes
        disk = FaultyDisk(os.path.join(self.directory, "faults"), replica)
        cluster.start()
        cluster.wait_followed(leader)
        unhurried = leader.connect("other.db")
        self.addCleanup(unhurried.close)
        for statement in ("PRAGMA journal_mode=wal", "PRAGMA synchronous=NORMAL", "CREATE TABLE t(x)"):
            unhurried.execute(statement)
        go, writers = self.start_writers(self.open_databases(leader, "-wal", "wal"))
        cluster.wait_followed(leader)
        daemon = leader.daemon()
        threads = thread_count(daemon)
        disk.fail(1 << 30, kinds=SYNC)  # none fails, all are counted
        replica.signal_daemon(signal.SIGSTOP)
        go.set()
        wait_for(lambda: in_fsync() == WRITERS, lambda: f"all writers to wait, {in_fsync()} do")
        waiting_threads = thread_count(daemon)
        self.sync_something_else(unhurried, leader.path("notes"))
        self.assertEqual([writer.outcome for writer in writers if writer.outcome], [])
        replica.signal_daemon(signal.SIGCONT)
        for writer in writers:
            writer.join(WAIT_SECONDS)
        self.assertEqual({writer.outcome for writer in writers}, {"OK"})
        print(f"{WRITERS} waiting commits: {threads} threads of the primary's daemon before, {waiting_threads} then; "
              f"the replica synced {disk.counted} times")
        # gRPC starts and ends a few threads of its own as it likes.
        self.assertLess(waiting_threads, threads + WRITERS // 50)
        self.assertLess(disk.counted, WRITERS // 4)
        cluster.wait_converged()
