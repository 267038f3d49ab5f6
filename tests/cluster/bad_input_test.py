"""Wrong configuration, taken resources and damaged files: each a clear error, none a crash."""

import os
import socket
import subprocess

import harness


class BadInputTest(harness.ClusterTest):
    def assert_start_fails(self, node, *words, code=1):
        """The node ends by itself, says all the words, and leaves no mount."""
        node.start(wait=False)
        self.assertEqual(node.wait_end(), code, node.log_text())
        for word in words:
            self.assertIn(word, node.log_text())
        self.assertFalse(harness.is_mounted(node.mount))

    def test_mount_directory_that_is_missing(self):
        node = self.node("a")
        os.rmdir(node.mount)
        self.assert_start_fails(node, node.mount, "does not exist", "mkdir -p")

    def test_mount_directory_that_is_a_file(self):
        node = self.node("a")
        os.rmdir(node.mount)
        with open(node.mount, "w", encoding="utf-8"):
            pass
        self.assert_start_fails(node, node.mount, "not a directory")

    def test_mount_directory_that_is_not_empty(self):
        node = self.node("a")
        with open(node.path("precious"), "w", encoding="utf-8"):
            pass
        self.assert_start_fails(node, node.mount, "not empty", "precious")

    def test_mount_directory_of_another_node(self):
        node = self.node("a").start()
        other = self.node("b", arguments=["--fuse-dir", node.mount])
        other.start(wait=False)
        self.assertNotEqual(other.wait_end(), 0)
        node.execute("app.db", "CREATE TABLE t(x)")
        self.assertEqual(node.stop(), 0)

    def test_data_directory_of_another_node(self):
        node = self.node("a").start()
        other = self.node("b")
        other.arguments[other.arguments.index("--data-dir") + 1] = node.data
        self.assert_start_fails(other, node.data, "in use by another echofs")
        node.execute("app.db", "CREATE TABLE t(x)")
        self.assertEqual(node.stop(), 0)

    def test_port_that_is_taken(self):
        port = harness.free_port()
        with socket.create_server(("127.0.0.1", port)):
            node = self.node("a", port=port, primary_port=port)
            self.assert_start_fails(node, f"127.0.0.1:{port}", "another process uses this port")
        node.start()
        self.assertEqual(node.stop(), 0)

    def write_config(self, text):
        path = os.path.join(self.directory, "echofs.yml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_wrong_keys_and_values_in_the_configuration(self):
        node = self.node("a")
        base = f"fuse: {{ dir: {node.mount} }}\ndata: {{ dir: {node.data} }}\n"
        for text, *words in ((base + "lease: { tpye: static }", ":3:", "lease.tpye", "lease.type"),
                             (base + "fues: { dir: x }", ":3:", "fues"),
                             (base + "lease: { ttl: soon }", ":3:", "lease.ttl", "soon"),
                             (base + "log: { level: loud }", ":3:", "log.level"),
                             (base + "fuse: { dir: /x }", ":3:", "twice"),
                             (base + "a: [", "not valid YAML"),
                             (base + "data: 7", ":3:", "data")):
            path = self.write_config(text)
            for command in (["config", "check", "--config", path], ["mount", "--config", path]):
                done = subprocess.run([harness.ECHOFS, *command], timeout=harness.COMMAND_SECONDS, check=False,
                                      stdin=subprocess.DEVNULL, capture_output=True, text=True)
                self.assertEqual(done.returncode, 2, (text, done))
                for word in words:
                    self.assertIn(word, done.stderr, text)
        self.assertFalse(harness.is_mounted(node.mount))

    def test_good_configuration_file_is_used(self):
        node = self.node("a")
        path = self.write_config("node: { id: from-file }\n"
                                 f"fuse: {{ dir: {node.mount} }}\n"
                                 f"data: {{ dir: '{os.path.dirname(node.data)}/${{PART}}' }}\n"
                                 "http: { listen: off }\n")
        node.arguments = ["--config", path]
        os.environ["PART"] = "data"
        harness.run([harness.ECHOFS, "config", "check", "--config", path])
        node.start()
        self.assertEqual(node.status()["node"], "from-file")
        done = harness.run([harness.ECHOFS, "status", "--config", path])
        self.assertIn("from-file", done.stdout)
        self.assertEqual(node.stop(), 0)

    def test_commands_without_a_node(self):
        node = self.node("a")
        for command in (["status"], ["databases"], ["log", "app.db"]):
            done = node.echofs(*command, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(node.data, done.stderr)

    def test_replica_of_another_cluster(self):
        first = self.cluster()
        first.primary.execute("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES ('first')")
        first.wait_converged()
        first.stop()
        # Another primary takes the address.
        directory = os.path.join(self.directory, "second")
        os.mkdir(directory)
        second = harness.Node(directory, "a", first.primary.port, first.primary.port).start()
        self.addCleanup(second.stop)
        second.execute("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES ('second')")
        replica = first.replica
        replica.start(wait=False)
        wanted = "belongs to another cluster"
        harness.wait_for(lambda: wanted in replica.log_text(), "an error of the replica")
        self.assertRegex(replica.log_text(), f"error .*{wanted}.* move its data directory away")
        harness.wait_for(lambda: wanted in replica.echofs("status").stdout, "an error in the status")
        self.assertRegex(second.log_text(), f"refused a replica at ipv4:127.0.0.1:.*{wanted}")
        # It keeps what it has.
        self.assertEqual(replica.execute("app.db", "SELECT x FROM t"), [("first",)])

    def segments(self, node):
        folder = os.path.join(node.data, "log")
        return sorted(path for path in (os.path.join(folder, name) for name in os.listdir(folder))
                      if os.path.isfile(path) and os.path.getsize(path) > 8192)

    def fill(self, node):
        node.execute("app.db", "PRAGMA journal_mode=wal", "CREATE TABLE t(x)",
                     *["INSERT INTO t VALUES (randomblob(2000))"] * 50)

    def test_l2_damage_in_the_middle_of_the_log_of_a_replica(self):
        cluster = self.cluster()
        self.fill(cluster.primary)
        cluster.wait_converged()
        self.check_damage_in_the_middle(cluster.replica)

    def test_l2_damage_in_the_middle_of_the_log_of_a_primary(self):
        cluster = self.cluster()
        self.fill(cluster.primary)
        cluster.wait_converged()
        self.check_damage_in_the_middle(cluster.primary)

    def check_damage_in_the_middle(self, node):
        self.assertEqual(node.stop(), 0)
        segment = self.segments(node)[0]
        offset = os.path.getsize(segment) // 2
        with open(segment, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x10]))
        self.assert_start_fails(node, os.path.basename(segment), "offset")
        # With the byte as it was, the node starts as if nothing had been.
        with open(segment, "r+b") as file:
            file.seek(offset)
            file.write(byte)
        node.start()

    def tear(self, node, tail):
        """As if the machine went down while the tail was written."""
        with open(self.segments(node)[-1], "ab") as file:
            file.write(tail)

    def test_l2_torn_tail_of_the_log_is_cut(self):
        cluster = self.cluster()
        self.fill(cluster.primary)
        cluster.wait_converged()
        with open(self.segments(cluster.primary)[0], "rb") as file:
            record = file.read()[-4000:-100]  # of what looks much like a record
        for node in cluster.nodes:
            for tail in (b"x", bytes(700), record):
                self.assertEqual(node.stop(), 0)
                self.tear(node, tail)
                node.start()
                self.assertIn(f"torn tail of {len(tail)} bytes", node.log_text())
                cluster.primary.execute("app.db", "INSERT INTO t VALUES (randomblob(500))")
                cluster.wait_converged()
        self.assertEqual(cluster.replica.execute("app.db", "SELECT count(*) FROM t"), [(56,)])

    def test_files_of_a_replica_that_were_damaged_while_it_was_stopped(self):
        cluster = self.cluster()
        cluster.primary.execute("app.db", "PRAGMA journal_mode=delete", "CREATE TABLE t(x)",
                                "INSERT INTO t SELECT randomblob(3000) FROM "
                                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 50)"
                                " SELECT i FROM n)")
        cluster.wait_converged()
        self.assertEqual(cluster.replica.stop(), 0)
        with open(os.path.join(cluster.replica.data, "files", "app.db"), "r+b") as file:
            file.seek(30000)
            file.write(b"damage")
        cluster.replica.start()
        # A6: the digest of the next transaction that touches the page shows it, and a copy heals it.
        cluster.primary.execute("app.db", "UPDATE t SET x = randomblob(3000)")
        cluster.wait_converged()
