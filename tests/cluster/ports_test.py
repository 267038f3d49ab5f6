"""Whoever reaches a port of echofs and should not be there: each is refused, and the cluster goes on."""

import json
import os
import stat
import subprocess

import certificates
import harness
import members
import port_checks
import strangers
from port_checks import NAME
from processes import COMMAND_SECONDS, as_nobody, needs_root, run, wait_for


class GarbageTest(harness.ClusterTest):
    """Without TLS and token."""

    def test_garbage_for_the_port_of_a_node(self):
        cluster = self.cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        rows.write()
        daemons = [node.daemon() for node in cluster.nodes]
        for node in cluster.nodes:
            for path in (strangers.FOLLOW, strangers.FETCH):
                for what, data in strangers.garbage(path):
                    with self.subTest(node=node.name, path=path, what=what):
                        strangers.send(f"127.0.0.1:{node.port}", data)
                        rows.write()
        self.assertEqual([node.daemon() for node in cluster.nodes], daemons)
        cluster.wait_converged()

    def test_garbage_for_many_connections_at_once(self):
        cluster = self.cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        silent = [strangers.connect(f"127.0.0.1:{cluster.primary.port}") for _ in range(200)]
        for connection in silent[::2]:
            connection.sendall(strangers.call(strangers.FOLLOW, b"", end=False))
        rows.write()
        # Calls without a Hello take the place of replicas, but not for ever.
        cluster.replica.stop()
        cluster.replica.start()
        rows.write()
        said = port_checks.warnings_with(cluster.primary, "said nothing for 10 seconds")
        self.assertLessEqual(len(said), 2, said)
        for connection in silent:
            connection.close()

    def test_garbage_for_the_lease_server(self):
        cluster = members.Members(self.directory, members.LeaseServer(self.directory), 2)
        self.addCleanup(cluster.stop)
        cluster.start()
        leader = cluster.leader()
        rows = port_checks.Replicated(leader, cluster.others(leader))
        term = leader.status()["term"]
        for what, data in strangers.garbage(strangers.LEASE_READ):
            with self.subTest(what=what):
                strangers.send(cluster.lease.endpoint, data)
                rows.write()
        self.assertIsNone(cluster.lease.process.poll())
        self.assertEqual(leader.status()["term"], term)
        leader.echofs("handoff")

    def test_garbage_for_the_socket_of_the_commands(self):
        node = self.node("a").start()
        node.execute(NAME, "CREATE TABLE t(x)")
        path = os.path.join(node.data, "echofs.sock")
        for what, data in strangers.garbage(strangers.STATUS):
            with self.subTest(what=what):
                strangers.send(path, data)
                self.assertEqual(node.status()["role"], "primary")
        self.assertEqual(node.stop(), 0)

    def test_names_that_commands_give(self):
        node = self.node("a").start()
        node.execute(NAME, "CREATE TABLE t(x)")
        for name in ("../node.json", "/etc/passwd", "app.db-wal", "a//b", ".", "x" * 2000, ".lag"):
            with self.subTest(name=name):
                done = node.echofs("log", name, check=False)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn("cannot be the name of a database", done.stderr)
                done = node.echofs("orphans", "export", name, "--to", os.path.join(self.directory, "out"), check=False)
                self.assertEqual(done.returncode, 1, done)
        self.assertEqual(node.stop(), 0)

    @needs_root
    def test_only_the_owner_may_give_commands(self):
        node = self.node("a").start()
        path = os.path.join(node.data, "echofs.sock")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        for name in ("log", "tmp", "orphans"):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(node.data, name)).st_mode), 0o700, name)
        done = subprocess.run([*as_nobody(), harness.ECHOFS, "status", "--data-dir", node.data], check=False,
                              capture_output=True, text=True, timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        self.assertIn("run this command as the user who runs echofs", done.stderr)
        self.assertEqual(node.stop(), 0)

    @needs_root
    def test_a_data_directory_that_echofs_makes_is_the_owners_alone(self):
        node = self.node("a")
        os.rmdir(node.data)
        node.start()
        self.assertEqual(stat.S_IMODE(os.stat(node.data).st_mode), 0o700)
        self.assertEqual(node.stop(), 0)


class TokenTest(harness.ClusterTest):
    def configured(self, name, path):
        directory = os.path.join(self.directory, name)
        os.mkdir(directory)
        return ["--config", port_checks.write_config(directory, {"grpc": {"token-file": path} if path else {}})]

    def test_nodes_with_another_token_and_without_one(self):
        path = certificates.token_file(self.directory)
        cluster = self.cluster(arguments=self.configured("right", path))
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        rows.write()
        other = certificates.token_file(self.directory, "other-token")
        for name, arguments, word in (("x", self.configured("wrong", other), "with a wrong token"),
                                      ("y", self.configured("none", None), "without a token")):
            stranger = harness.Node(self.directory, name, harness.free_port(), cluster.primary.port,
                                    arguments=arguments)
            stranger.start(wait=False)
            self.addCleanup(stranger.stop)
            wait_for(lambda node=stranger, word=word: word in node.log_text(), f"{name} to say that")
            wait_for(lambda word=word: port_checks.warnings_with(cluster.primary, word), "the primary to say that")
            self.assertFalse(os.path.exists(stranger.path(NAME)))
            rows.write()
        # However often they come.
        for _ in range(20):
            strangers.send(f"127.0.0.1:{cluster.primary.port}",
                           strangers.call(strangers.FOLLOW, strangers.message(b"")), until=b"without a token")
        self.assertLessEqual(len(port_checks.warnings_with(cluster.primary, "without a token")), 2)
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
        for node in cluster.nodes:
            self.assertNotIn(token, node.log_text())
            self.assertNotIn(token, node.echofs("status", "--json").stdout)
        check = run([harness.ECHOFS, "config", "check", *cluster.primary.arguments])
        self.assertNotIn(token, check.stdout + check.stderr)
        self.assertIn("by a token", check.stdout)

    def test_token_that_is_changed_without_a_gap(self):
        path = certificates.token_file(self.directory)
        arguments = self.configured("right", path)
        cluster = self.cluster(arguments=arguments)
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        with open(path, encoding="ascii") as file:
            old = file.read()
        with open(certificates.token_file(self.directory, "new-token"), encoding="ascii") as file:
            new = file.read()

        def presented(token):
            call = strangers.call(strangers.FOLLOW, strangers.message(b""), authorization="Bearer " + token.strip())
            return strangers.send(f"127.0.0.1:{cluster.primary.port}", call, seconds=10, until=b"token")

        self.assertNotIn(b"token", presented(old))
        self.assertIn(b"with a wrong token", presented(new))
        for content, accepted, refused in ((old + new, (old, new), ()), (new, (new,), (old,))):
            with open(path, "w", encoding="ascii") as file:
                file.write(content)
            for token in accepted:
                wait_for(lambda token=token: b"token" not in presented(token), "a token to be accepted")
            for token in refused:
                wait_for(lambda token=token: b"token" in presented(token), "a token to be refused")
        rows.write()
        cluster.replica.stop()
        cluster.replica.start()
        rows.write()

    def test_lease_server_with_a_token(self):
        path = certificates.token_file(self.directory)
        lease = members.LeaseServer(self.directory)
        lease.options = ["--token-file", path]
        cluster = members.Members(self.directory, lease, 2, settings={"grpc": {"token-file": path}})
        self.addCleanup(cluster.stop)
        cluster.start()
        leader = cluster.leader()
        rows = port_checks.Replicated(leader, cluster.others(leader))
        rows.write()
        stranger = members.Member(self.directory, "x", lease)
        stranger.start(wait=False)
        self.addCleanup(stranger.stop)
        wait_for(lambda: "without a token" in stranger.log_text(), "the stranger to say that")
        self.assertEqual({node["node"] for node in leader.status()["nodes"]}, {"a", "b"})

    def test_every_call_of_every_service_needs_the_token(self):
        path = certificates.token_file(self.directory)
        lease = members.LeaseServer(self.directory)
        lease.options = ["--token-file", path]
        cluster = members.Members(self.directory, lease, 1, settings={"grpc": {"token-file": path}})
        self.addCleanup(cluster.stop)
        cluster.start()
        for address, proto in ((cluster.leader().address, "replication"), (lease.endpoint, "lease")):
            calls = strangers.calls_of(proto)
            self.assertGreater(len(calls), 4, calls)
            for call in calls:
                for token, refused in ((None, b"without a token"), ("Bearer " + "0" * 64, b"with a wrong token"),
                                       ("0" * 64, b"with a wrong token")):
                    with self.subTest(call=call, token=token):
                        extra = {"authorization": token} if token else {}
                        answer = strangers.send(address, strangers.call(call, strangers.message(b""), **extra),
                                                seconds=10, until=refused)
                        self.assertIn(refused, answer)

    def test_token_file_that_others_can_read(self):
        path = certificates.token_file(self.directory)
        os.chmod(path, 0o644)
        port = harness.free_port()
        node = self.node("a", port=port, primary_port=port, arguments=self.configured("open", path))
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 1, node.log_text())
        self.assertIn(f"chmod 600 {path}", node.log_text())


class OtherClusterTest(members.MembersTest):
    def check_other_cluster(self, lease):
        """A node of another cluster that is given this one's lease: it neither leads nor is waited for."""
        cluster = members.Members(self.directory, lease, 2)
        self.addCleanup(self._stop_members, cluster)
        cluster.start()
        leader = cluster.leader()
        rows = port_checks.Replicated(leader, cluster.others(leader))
        rows.write()
        stranger = members.Member(self.directory, "x", lease, settings={"lease": {"key": "other"}})
        stranger.start()
        wait_for(lambda: stranger.role() == "primary", "the other cluster's primary")
        for number in range(20):
            stranger.execute(NAME, f"CREATE TABLE t{number}(x)")  # its log is the longer one
        self.assertEqual(stranger.stop(), 0)
        own, other = port_checks.cluster_id(leader), port_checks.cluster_id(stranger)
        self.assertNotEqual(own, other)

        config = stranger.arguments[1]
        with open(config, encoding="utf-8") as file:
            settings = json.load(file)
        settings["lease"]["key"] = "echofs"
        with open(config, "w", encoding="utf-8") as file:
            json.dump(settings, file)
        stranger.start(wait=False)
        self.addCleanup(stranger.stop)
        refused = f"is that of cluster {own}, but the node belongs to cluster {other}"
        wait_for(lambda: refused in stranger.log_text(), "the stranger to say that")
        self.assertIn(refused, stranger.echofs("status").stdout)
        rows.write()
        # It may have announced itself before the first primary's first renewal told the service whose lease this is.
        wait_for(lambda: {node["node"] for node in leader.status()["nodes"]} == {"a", "b"}, "the stranger to be forgotten")
        successor = cluster.others(leader)[0]
        leader.kill()
        wait_for(lambda: successor.role() == "primary", "the successor to lead")
        self.assertEqual(stranger.role(), "replica")
        leader.start()
        return refused

    def test_every_call_of_another_cluster(self):
        """Its id is a field of each request: the second of a Hello, else the first."""
        cluster = self.cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        other = "0123456789abcdef0123456789abcdef"
        hello = strangers.number(1, 1) + strangers.field(2, other) + strangers.field(3, "x")
        requests = {"Follow": strangers.field(1, hello), "FetchDatabase": strangers.field(1, other) + strangers.field(3, NAME),
                    "ImportDatabase": strangers.field(1, strangers.field(1, other) + strangers.field(2, "new.db")
                                                      + strangers.number(3, 4096))}
        for call in strangers.calls_of("replication"):
            with self.subTest(call=call):
                request = requests.get(call.rsplit("/", 1)[1], strangers.field(1, other))
                answer = strangers.send(f"127.0.0.1:{cluster.primary.port}", strangers.call(call, strangers.message(request)),
                                        seconds=10, until=b"cluster")
                self.assertIn(b"cluster", answer)
                self.assertIn(other.encode(), answer)
                self.assertIn(port_checks.cluster_id(cluster.primary).encode(), answer)
        rows.write()
        self.assertEqual(set(cluster.primary.databases()), {NAME})

    def test_import_that_says_nothing_does_not_keep_others_out(self):
        cluster = self.cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        call = strangers.call("/echofs.v1.Replication/ImportDatabase", b"", end=False)
        silent = [strangers.connect(f"127.0.0.1:{cluster.primary.port}") for _ in range(3)]
        for connection in silent:
            self.addCleanup(connection.close)
            connection.sendall(call)
        source = os.path.join(self.directory, "source.db")
        run(["sqlite3", source, "CREATE TABLE t(x); INSERT INTO t VALUES (7)"])
        cluster.replica.echofs("import", "new.db", source)
        for connection in silent:
            self.assertIn(b"Cancelled on the server side", strangers.receive(connection, 20, b"server side"))
        rows.write()

    def test_node_of_another_cluster_at_the_lease_server(self):
        lease = members.LeaseServer(self.directory)
        refused = self.check_other_cluster(lease)
        with open(lease.directory + ".log", encoding="utf-8") as log:
            lines = [line for line in log if refused in line]
        self.assertIn(len(lines), (1, 2, 3), lines)  # a minute each

    def test_node_of_another_cluster_at_etcd(self):
        self.check_other_cluster(members.Etcd(self.directory))
