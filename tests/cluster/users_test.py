"""Owners, modes and other users; and a mount by an ordinary user through fusermount3."""

import os
import shutil
import stat

import harness

OTHER = 12345  # a user and a group that own nothing


def as_user(uid, *command):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command]


class UsersTest(harness.ClusterTest):
    def facts(self, path):
        found = os.lstat(path)
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    @harness.needs_root
    def test_files_belong_to_who_creates_them(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("shared")
        shared = cluster.primary.path("shared")
        os.chmod(shared, 0o1777)
        self.assertEqual(self.facts(shared)[2], 0o1777)
        database = os.path.join(shared, "app.db")
        harness.run(as_user(OTHER, "sh", "-c", 'umask 027; sqlite3 "$0" "PRAGMA journal_mode=wal; '
                            'CREATE TABLE t(x); INSERT INTO t VALUES (1)"; mkdir "$1/made"; '
                            'umask 0; echo text > "$1/notes"', database, shared))
        self.assertEqual(self.facts(database), (OTHER, OTHER, 0o640))
        self.assertEqual(self.facts(os.path.join(shared, "made")), (OTHER, OTHER, 0o750))
        self.assertEqual(self.facts(os.path.join(shared, "notes")), (OTHER, OTHER, 0o666))
        cluster.wait_converged()
        self.assertEqual(self.facts(cluster.replica.path("shared/app.db")), (OTHER, OTHER, 0o640))
        # The WAL and its index follow the database, whoever opens it.
        connection = cluster.primary.connect("shared/app.db")
        connection.execute("INSERT INTO t VALUES (2)")
        for suffix in ("-wal", "-shm"):
            self.assertEqual(self.facts(database + suffix), (OTHER, OTHER, 0o640))
        harness.run(as_user(OTHER, "sqlite3", database, "INSERT INTO t VALUES (3)"))
        self.assertEqual(connection.execute("SELECT count(*) FROM t").fetchall(), [(3,)])
        connection.close()
        cluster.wait_converged()

    @harness.needs_root
    def test_permissions_are_enforced(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        os.chmod(cluster.primary.path("app.db"), 0o600)
        for command in (["cat", cluster.primary.path("app.db")],
                        ["touch", cluster.primary.path("new")],
                        ["mkdir", cluster.primary.path("new")],
                        ["rm", "-f", cluster.primary.path("app.db")],
                        ["chmod", "777", cluster.primary.path("app.db")],
                        ["sqlite3", cluster.primary.path("app.db"), "SELECT * FROM t"]):
            done = harness.run(as_user(OTHER, *command), check=False)
            self.assertNotEqual(done.returncode, 0, command)
        os.chmod(cluster.primary.path("app.db"), 0o644)
        read = as_user(OTHER, "sqlite3", "-readonly", cluster.primary.path("app.db"), "SELECT * FROM t")
        self.assertEqual(harness.run(read).stdout, "1\n")
        write = as_user(OTHER, "sqlite3", cluster.primary.path("app.db"), "INSERT INTO t VALUES (2)")
        done = harness.run(write, check=False)
        self.assertIn("readonly", done.stderr)
        cluster.wait_converged()

    @harness.needs_root
    def test_setgid_directories_give_their_group(self):
        cluster = self.cluster()
        cluster.primary.mkdirs("team")
        os.chown(cluster.primary.path("team"), 0, 777)
        os.chmod(cluster.primary.path("team"), 0o2777)
        harness.run(as_user(OTHER, "sh", "-c", 'umask 002; cd "$0"; sqlite3 app.db "CREATE TABLE t(x)"; '
                            'mkdir sub', cluster.primary.path("team")))
        self.assertEqual(self.facts(cluster.primary.path("team/app.db"))[:2], (OTHER, 777))
        self.assertEqual(self.facts(cluster.primary.path("team/sub")), (OTHER, 777, 0o2775))
        cluster.wait_converged()

    @harness.needs_root
    def test_ordinary_user_mounts_through_fusermount3(self):
        before = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        os.chmod("/dev/fuse", 0o666)
        self.addCleanup(os.chmod, "/dev/fuse", before)
        # The build folder may be out of this user's reach.
        program = os.path.join(self.directory, "echofs")
        shutil.copy(harness.ECHOFS, program)
        cluster = self.cluster(start=False, prefix=harness.as_nobody())
        for node in cluster.nodes:
            node.program = program
            for path in (node.directory, node.mount, node.data):
                os.chown(path, harness.NOBODY, harness.NOBODY)
        cluster.start()
        for mode in ("wal", "delete"):
            shell = ["sqlite3", cluster.primary.path(mode + ".db")]
            harness.run([*harness.as_nobody(), *shell], input=f"PRAGMA journal_mode={mode}; "
                        "CREATE TABLE t(x); " + "INSERT INTO t VALUES (randomblob(300)); " * 50)
        cluster.wait_positions()
        for mode in ("wal", "delete"):
            hashes = [harness.run([*harness.as_nobody(), "sqlite3", node.path(mode + ".db"),
                                   "PRAGMA integrity_check; SELECT count(*) FROM t", ".sha3sum"]).stdout
                      for node in cluster.nodes]
            self.assertEqual(hashes[0], hashes[1])
            self.assertTrue(hashes[0].startswith("ok\n50\n"), hashes[0])
        # Only the user himself gets in.
        self.assertNotEqual(harness.run(["ls", cluster.primary.mount], check=False).returncode, 0)
        for node in reversed(cluster.nodes):
            self.assertEqual(node.stop(), 0)
            self.assertFalse(harness.is_mounted(node.mount))
