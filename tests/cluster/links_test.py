"""Symbolic links that users of a mount make: what comes from other nodes does not go through them, nor do commands. Those in
the paths of the operator's own files are followed."""

import os

import harness
from processes import run, wait_for


class LinksTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.outside = os.path.join(self.directory, "outside")
        os.mkdir(self.outside)
        self.target = os.path.join(self.outside, "target")
        with open(self.target, "w", encoding="ascii") as file:
            file.write("precious")
        os.chmod(self.target, 0o600)

    def assert_untouched(self):
        self.assertEqual(os.listdir(self.outside), ["target"])
        self.assertEqual(os.stat(self.target).st_mode & 0o7777, 0o600)
        with open(self.target, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def check_link(self, mode, target, link, name):
        """A link in the replica's mount stands where a database of the primary is to be."""
        cluster = self.cluster()
        os.symlink(target, cluster.replica.path(link))
        cluster.primary.mkdirs(os.path.dirname(name))
        cluster.primary.execute(name, f"PRAGMA journal_mode={mode}", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        cluster.primary.execute("other.db", "CREATE TABLE t(x)")
        wait_for(lambda: "other.db" in cluster.replica.databases(), "other.db on the replica")

        def stands():
            found = cluster.replica.databases().get(name)
            return found and (found["state"] == "stopped" or not os.path.islink(cluster.replica.path(link)))

        wait_for(stands, f"{name} to be stopped")
        self.assert_untouched()
        if os.path.islink(cluster.replica.path(link)):
            os.remove(cluster.replica.path(link))
        cluster.wait_converged()
        self.assertEqual(cluster.replica.execute(name, "SELECT x FROM t"), [(1,)])
        self.assert_untouched()

    def test_link_to_a_file_in_the_place_of_a_wal_database(self):
        self.check_link("wal", self.target, "app.db", "app.db")

    def test_link_to_a_file_in_the_place_of_a_rollback_database(self):
        self.check_link("delete", self.target, "app.db", "app.db")

    def test_link_to_a_file_in_the_place_of_a_wal(self):
        self.check_link("wal", self.target, "app.db-wal", "app.db")

    def test_link_to_a_directory_above_a_database(self):
        self.check_link("wal", self.outside, "sub", "sub/app.db")

    def test_link_in_the_place_of_a_directory_that_is_in_use(self):
        """As if somebody were quicker than the daemon: it knows a directory, and a link to another stands there."""
        node = self.node("a").start()
        inside = node.path("sub")
        os.mkdir(inside)
        for name in ("target", "file"):
            with open(os.path.join(inside, name), "w", encoding="ascii") as file:
                file.write("inside")
        os.mkdir(os.path.join(inside, "directory"))
        os.symlink("nowhere", os.path.join(inside, "link"))
        os.listdir(inside)
        backing = os.path.join(node.data, "files", "sub")
        os.rename(backing, backing + "-away")
        os.symlink(self.outside, backing)
        os.mkdir(os.path.join(self.outside, "directory"))

        def target(name):
            return os.path.join(inside, name)

        for what, change in (
                ("mkdir", lambda: os.mkdir(target("new"))),
                ("symlink", lambda: os.symlink("x", target("new"))),
                ("create", lambda: os.close(os.open(target("new"), os.O_CREAT | os.O_WRONLY))),
                ("unlink", lambda: os.remove(target("target"))),
                ("rmdir", lambda: os.rmdir(target("directory"))),
                ("rename", lambda: os.rename(target("target"), target("new"))),
                ("chmod", lambda: os.chmod(target("target"), 0o666)),
                ("chown", lambda: os.chown(target("target"), 12345, 12345)),
                ("utime", lambda: os.utime(target("target"), (1, 1))),
                ("truncate", lambda: os.truncate(target("target"), 0)),
                ("readlink", lambda: os.readlink(target("link")))):
            with self.subTest(what), self.assertRaises(OSError):
                change()
        self.assertEqual(sorted(os.listdir(self.outside)), ["directory", "target"])
        self.assertGreater(os.stat(self.target).st_mtime, 1000)
        self.assertEqual(os.stat(self.target).st_uid, os.geteuid())
        os.rmdir(os.path.join(self.outside, "directory"))
        self.assert_untouched()
        node.stop()

    def test_link_of_an_application_is_followed_by_the_application(self):
        node = self.node("a").start()
        self.addCleanup(node.stop)
        node.mkdirs("real")
        node.execute("real/app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        os.symlink("real", node.path("link"))
        os.symlink("real/app.db", node.path("other.db"))
        self.assertEqual(node.execute("link/app.db", "INSERT INTO t VALUES (2)", "SELECT count(*) FROM t"), [(2,)])
        self.assertEqual(node.execute("other.db", "SELECT count(*) FROM t"), [(2,)])
        self.assertEqual(set(node.databases()), {"real/app.db"})


class OperatorLinksTest(harness.ClusterTest):
    """Paths that whoever runs a command gives it."""

    def setUp(self):
        super().setUp()
        real = os.path.join(self.directory, "real")
        os.mkdir(real)
        self.linked = os.path.join(self.directory, "linked")
        os.symlink(real, self.linked)
        self.source = os.path.join(real, "source.db")
        run(["sqlite3", self.source, "PRAGMA journal_mode=wal", "CREATE TABLE t(x); INSERT INTO t VALUES (7)"])

    def test_import_and_export_by_way_of_a_linked_directory(self):
        os.environ["TMPDIR"] = self.linked  # where a replica puts its copy together
        cluster = self.cluster()
        os.symlink("source.db", os.path.join(self.linked, "link.db"))
        for node in cluster.nodes:
            for file in ("source.db", "link.db"):
                node.echofs("import", f"{node.name}-{file}", os.path.join(self.linked, file))
        names = cluster.wait_converged()
        self.assertEqual(len(names), 4)
        for node in cluster.nodes:
            for name in names:
                target = os.path.join(self.linked, "exported.db")
                for options in ([], ["--force"]):
                    node.echofs("export", name, target, *options)
                self.assertEqual(run(["sqlite3", target, "SELECT x FROM t"]).stdout, "7\n")
                os.remove(target)
                written = node.echofs("log", name, "--export", "1", "--to", self.linked).stdout.strip()
                os.remove(written)
        self.assertEqual(sorted(os.listdir(self.linked)), ["link.db", "source.db"])


class LinksOutOfTheDataDirectoryTest(harness.ClusterTest):
    """Names of databases of which a link in the mount, or in the data directory, makes something outside."""

    def setUp(self):
        super().setUp()
        self.outside = os.path.join(self.directory, "outside")
        os.mkdir(self.outside)
        self.source = os.path.join(self.directory, "source.db")
        run(["sqlite3", self.source, "CREATE TABLE t(x); INSERT INTO t VALUES (7)"])

    def test_import_does_not_go_through_them(self):
        cluster = self.cluster()
        files = os.path.join(cluster.primary.data, "files")
        os.symlink(self.outside, cluster.primary.path("made-in-the-mount"))
        os.symlink(self.outside, os.path.join(files, "made-below-it"))
        os.symlink(os.path.join(self.outside, "new.db"), cluster.primary.path("dangling.db"))
        for node in cluster.nodes:
            for name, said in (("made-in-the-mount/x.db", "Not a directory"), ("made-below-it/x.db", "Not a directory"),
                               ("made-below-it/sub/x.db", "symbolic links"), ("dangling.db", "no database of the cluster")):
                for options in ([], ["--replace"]):
                    with self.subTest(node=node.name, name=name, options=options):
                        done = node.echofs("import", name, self.source, *options, check=False)
                        self.assertEqual(done.returncode, 1, done.stdout)
                        self.assertIn(said, done.stderr)
                        self.assertEqual(os.listdir(self.outside), [])
        self.assertEqual(cluster.primary.databases(), {})
        cluster.replica.echofs("import", "app.db", self.source)
        self.assertEqual(cluster.wait_converged(), ["app.db"])

    def test_a_node_does_not_start_over_them(self):
        """While it is down the directory of a database is moved out of the data directory, and a link put in its place."""
        cluster = self.cluster()
        cluster.primary.mkdirs("sub")
        cluster.primary.execute("sub/app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        cluster.wait_converged()
        for node in reversed(cluster.nodes):
            self.assertEqual(node.stop(), 0)
            directory = os.path.join(node.data, "files", "sub")
            moved = os.path.join(self.outside, node.name)
            os.rename(directory, moved)
            os.symlink(moved, directory)
            before = self.content(moved)
            node.start(wait=False)
            self.assertEqual(node.wait_end(), 1, node.log_text())
            self.assertIn("Too many levels of symbolic links", node.log_text())
            self.assertEqual(self.content(moved), before)
            os.remove(directory)
            os.rename(moved, directory)
        cluster.start()
        self.assertEqual(cluster.wait_converged(), ["sub/app.db"])

    @staticmethod
    def content(directory):
        found = {}
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), "rb") as file:
                found[name] = (file.read(), os.stat(file.fileno()).st_mtime_ns)
        return found
