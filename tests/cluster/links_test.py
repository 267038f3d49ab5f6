"""Symbolic links that users of a mount make: what comes from other nodes does not go through them."""

import os

import harness
from processes import wait_for


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
