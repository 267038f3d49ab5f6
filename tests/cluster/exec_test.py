"""`exec` in the configuration, on nodes with a static lease."""

import os

import harness


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class ExecTest(harness.ClusterTest):
    def configure(self, node, *entries, candidate=True):
        """Gives the node a configuration whose `exec` has these entries."""
        path = os.path.join(self.directory, f"{node.name}.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"lease: {{ candidate: {str(candidate).lower()} }}\nexec:\n")
            file.writelines(f"  - {entry}\n" for entry in entries)
        node.arguments += ["--config", path]

    def write(self, name, text):
        """Makes a file, such as a script; returns its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_commands_run_in_order_and_the_last_one_is_supervised(self):
        node = self.node("alone")
        database = node.path("app.db")
        script = self.write("app.sh", f"sqlite3 {database} 'INSERT INTO t VALUES (2)'\nexit 7\n")
        self.configure(node, f"cmd: sqlite3 {database} 'CREATE TABLE t(x)'",
                       f"{{ cmd: \"sqlite3 {database} 'INSERT INTO t VALUES (1)'\", if-candidate: true }}",
                       f"cmd: sh {script}")
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 7)
        self.assertFalse(harness.is_mounted(node.mount))
        # What stands behind "--" replaces them all.
        dump = self.write("dump.sh", f"sqlite3 {database} 'SELECT x FROM t' > {self.directory}/rows\n")
        node.command = ["sh", dump]
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 0)
        self.assertEqual(read(f"{self.directory}/rows"), "1\n2\n")

    def test_commands_for_candidates_are_skipped_on_a_node_that_is_none(self):
        cluster = self.cluster(start=False)
        out = os.path.join(self.directory, "out")
        for node, candidate in ((cluster.primary, True), (cluster.replica, False)):
            say = self.write(f"say-{node.name}.sh", f"echo {node.name} $1 >> {out}-{node.name}\n")
            self.configure(node, f"{{ cmd: sh {say} first, if-candidate: true }}",
                           f"cmd: sh {say} second", f"{{ cmd: sh {say} last, if-candidate: true }}",
                           candidate=candidate)
        # On the primary the last one is supervised, so its end is the node's.
        cluster.primary.start(wait=False)
        self.assertEqual(cluster.primary.wait_end(), 0)
        self.assertEqual(read(f"{out}-a"), "a first\na second\na last\n")
        # On the replica no command is left to supervise, and the node goes on.
        cluster.primary.arguments = cluster.primary.arguments[:-2]
        cluster.start()
        harness.wait_for(lambda: os.path.exists(f"{out}-b"), "the command of the replica")
        cluster.primary.execute("app.db", "CREATE TABLE t(x)")
        cluster.wait_converged()
        self.assertEqual(read(f"{out}-b"), "b second\n")
        self.assertIn("first", cluster.replica.log_text())
        self.assertIn("last", cluster.replica.log_text())

    def test_a_command_that_fails_ends_the_node_with_its_exit_code(self):
        node = self.node("alone")
        self.configure(node, "cmd: sh -c 'exit 5'", f"cmd: touch {self.directory}/never")
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 5)
        self.assertIn("ended with exit code 5", node.log_text())
        self.assertFalse(os.path.exists(f"{self.directory}/never"))
        self.assertFalse(harness.is_mounted(node.mount))

    def test_sigterm_ends_the_command_that_runs(self):
        node = self.node("alone")
        marker = os.path.join(self.directory, "marker")
        script = self.write("wait.sh", "trap 'exit 0' TERM\n"
                                       f": > {marker}\nwhile :; do sleep 0.01; done\n")
        self.configure(node, f"cmd: sh {script}", f"cmd: touch {self.directory}/never")
        node.start(wait=False)
        harness.wait_for(lambda: os.path.exists(marker), "the command")
        self.assertEqual(node.stop(), 0)
        self.assertFalse(os.path.exists(f"{self.directory}/never"))
