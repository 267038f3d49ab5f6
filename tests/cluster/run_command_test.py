"""`echofs run`, on nodes with a static lease."""

import os
import signal
import subprocess

import harness


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class RunTest(harness.ClusterTest):
    def command(self, node, *command, options=()):
        return [harness.ECHOFS, "run", *options, "--data-dir", node.data, "--", *command]

    def test_run_ends_with_the_exit_code_of_its_command(self):
        cluster = self.cluster()
        for node in cluster.nodes:
            done = harness.run(self.command(node, "sh", "-c", "echo out; exit 7"), check=False)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "out\n", ""))
        missing = harness.run(self.command(cluster.primary, "/no/such/program"), check=False)
        self.assertEqual(missing.returncode, 127)
        self.assertIn("/no/such/program", missing.stderr)

    def test_run_waits_until_the_replica_has_caught_up(self):
        cluster = self.cluster(start=False)
        cluster.primary.start().execute("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)")
        self.assertEqual(cluster.primary.stop(), 0)
        cluster.replica.start(wait=False)
        harness.wait_for(cluster.replica.status, "the replica")
        errors = os.path.join(self.directory, "errors")
        with open(errors, "w", encoding="utf-8") as file:
            run = self.spawn(self.command(cluster.replica, "sqlite3", cluster.replica.path("app.db"),
                                          "SELECT x FROM t"), stdout=subprocess.PIPE, stderr=file)
        harness.wait_for(lambda: "has caught up" in read(errors), "run to wait")
        cluster.primary.start()
        out, _ = run.communicate(timeout=harness.WAIT_SECONDS)
        self.assertEqual((run.returncode, out), (0, b"1\n"))

    def test_signals_of_run_go_to_its_command(self):
        node = self.node("alone").start()
        marker = os.path.join(self.directory, "marker")
        run = self.spawn(self.command(node, "sh", "-c", f"trap 'exit 5' TERM; : > {marker}; "
                                                        "while :; do sleep 0.01; done"))
        harness.wait_for(lambda: os.path.exists(marker), "the command")
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(timeout=harness.WAIT_SECONDS), 5)
        self.assertEqual(node.stop(), 0)

    def test_promotion_needs_another_lease_on_a_replica_and_nothing_on_the_primary(self):
        cluster = self.cluster()
        primary, replica = cluster.nodes
        done = harness.run(self.command(primary, "echo", "out", options=["--promote"]))
        self.assertEqual((done.stdout, done.stderr),
                         ("out\n", "echofs: a is the primary now, term 1\n"))
        done = harness.run(self.command(replica, "echo", "out", options=["--promote"]), check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("the lease is static", done.stderr)
        for node, *arguments in ((replica, "promote"), (replica, "promote", "--force"),
                                 (primary, "handoff"), (primary, "handoff", "--to", "b")):
            done = node.echofs(*arguments, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("the lease is static", done.stderr)
        self.assertEqual(primary.status()["role"], "primary")

    def test_run_without_a_node_fails(self):
        done = harness.run([harness.ECHOFS, "run", "--data-dir", self.directory, "--", "true"],
                           check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no echofs is running", done.stderr)
