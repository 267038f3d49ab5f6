"""Whoever reaches a port of echofs and should not be there: each is refused, and the cluster goes on."""

import json
import os
import stat
import subprocess

import certificates
import harness
import members
import strangers
from processes import COMMAND_SECONDS, as_nobody, needs_root, run, wait_for

NAME = "app.db"


class Replicated:
    """A database whose rows are looked for on the replicas."""

    def __init__(self, primary, replicas):
        self.primary = primary
        self.replicas = replicas
        self.rows = 0
        primary.execute(NAME, "PRAGMA journal_mode=wal", "CREATE TABLE t(x)")

    def write(self):
        """One more row, which has to arrive everywhere."""
        self.rows += 1
        self.primary.execute(NAME, f"INSERT INTO t VALUES ({self.rows})")
        for node in self.replicas:
            wait_for(lambda node=node: self.seen(node) == self.rows, f"row {self.rows} on {node.name}")

    def seen(self, node):
        if not os.path.exists(node.path(NAME)):
            return None
        return node.execute(NAME, "SELECT max(x) FROM t")[0][0]


def write_config(directory, settings):
    path = os.path.join(directory, "echofs.yml")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return path


def warnings_with(node, words):
    return [line for line in node.log_text().splitlines() if words in line and " debug " not in line]


class GarbageTest(harness.ClusterTest):
    """Without TLS and token."""

    def test_garbage_for_the_port_of_a_node(self):
        cluster = self.cluster()
        rows = Replicated(cluster.primary, cluster.replicas)
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
        rows = Replicated(cluster.primary, cluster.replicas)
        silent = [strangers.connect(f"127.0.0.1:{cluster.primary.port}") for _ in range(200)]
        for connection in silent[::2]:
            connection.sendall(strangers.call(strangers.FOLLOW, b"", end=False))
        rows.write()
        # Calls without a Hello take the place of replicas, but not for ever.
        cluster.replica.stop()
        cluster.replica.start()
        rows.write()
        said = warnings_with(cluster.primary, "said nothing for 10 seconds")
        self.assertLessEqual(len(said), 2, said)
        for connection in silent:
            connection.close()

    def test_garbage_for_the_lease_server(self):
        cluster = members.Members(self.directory, members.LeaseServer(self.directory), 2)
        self.addCleanup(cluster.stop)
        cluster.start()
        leader = cluster.leader()
        rows = Replicated(leader, cluster.others(leader))
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
        return ["--config", write_config(directory, {"grpc": {"token-file": path} if path else {}})]

    def test_nodes_with_another_token_and_without_one(self):
        path = certificates.token_file(self.directory)
        cluster = self.cluster(arguments=self.configured("right", path))
        rows = Replicated(cluster.primary, cluster.replicas)
        rows.write()
        other = certificates.token_file(self.directory, "other-token")
        for name, arguments, word in (("x", self.configured("wrong", other), "with a wrong token"),
                                      ("y", self.configured("none", None), "without a token")):
            stranger = harness.Node(self.directory, name, harness.free_port(), cluster.primary.port,
                                    arguments=arguments)
            stranger.start(wait=False)
            self.addCleanup(stranger.stop)
            wait_for(lambda node=stranger, word=word: word in node.log_text(), f"{name} to say that")
            wait_for(lambda word=word: warnings_with(cluster.primary, word), "the primary to say that")
            self.assertFalse(os.path.exists(stranger.path(NAME)))
            rows.write()
        # However often they come.
        for _ in range(20):
            strangers.send(f"127.0.0.1:{cluster.primary.port}",
                           strangers.call(strangers.FOLLOW, strangers.message(b"")), until=b"without a token")
        self.assertLessEqual(len(warnings_with(cluster.primary, "without a token")), 2)
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
        rows = Replicated(cluster.primary, cluster.replicas)
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
        rows = Replicated(leader, cluster.others(leader))
        rows.write()
        stranger = members.Member(self.directory, "x", lease)
        stranger.start(wait=False)
        self.addCleanup(stranger.stop)
        wait_for(lambda: "without a token" in stranger.log_text(), "the stranger to say that")
        self.assertEqual({node["node"] for node in leader.status()["nodes"]}, {"a", "b"})

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
        rows = Replicated(leader, cluster.others(leader))
        rows.write()
        stranger = members.Member(self.directory, "x", lease, settings={"lease": {"key": "other"}})
        stranger.start()
        wait_for(lambda: stranger.role() == "primary", "the other cluster's primary")
        for number in range(20):
            stranger.execute(NAME, f"CREATE TABLE t{number}(x)")  # its log is the longer one
        self.assertEqual(stranger.stop(), 0)
        own, other = self.cluster_id(leader), self.cluster_id(stranger)
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
        self.assertEqual({node["node"] for node in leader.status()["nodes"]}, {"a", "b"})
        successor = cluster.others(leader)[0]
        leader.kill()
        wait_for(lambda: successor.role() == "primary", "the successor to lead")
        self.assertEqual(stranger.role(), "replica")
        leader.start()
        return refused

    @staticmethod
    def cluster_id(node):
        with open(os.path.join(node.data, "node.json"), encoding="utf-8") as file:
            return json.load(file)["cluster_id"]

    def test_node_of_another_cluster_at_the_lease_server(self):
        lease = members.LeaseServer(self.directory)
        refused = self.check_other_cluster(lease)
        with open(lease.directory + ".log", encoding="utf-8") as log:
            lines = [line for line in log if refused in line]
        self.assertIn(len(lines), (1, 2, 3), lines)  # a minute each

    def test_node_of_another_cluster_at_etcd(self):
        self.check_other_cluster(members.Etcd(self.directory))


class TlsTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.authority = certificates.Authority(self.directory, "ca")
        self.files = self.authority.issue("node")

    def tls_cluster(self, replicas=1):
        config = write_config(self.directory, {"grpc": {"tls": self.files}})
        return self.cluster(replicas, arguments=["--config", config])

    def assert_let_in(self, address, files, ca=None):
        answer, why = strangers.tls_call(address, strangers.PREFACE + strangers.frame(4, b""), ca or files["ca"],
                                         files["cert"], files["key"])
        self.assertTrue(answer, why)

    def test_whoever_has_no_certificate_of_the_authority(self):
        cluster = self.tls_cluster()
        rows = Replicated(cluster.primary, cluster.replicas)
        rows.write()
        address = f"127.0.0.1:{cluster.primary.port}"
        self.assert_let_in(address, self.files)
        other = certificates.Authority(self.directory, "other")
        hello = strangers.PREFACE + strangers.frame(4, b"")
        for what, files in (("none", {}), ("of another authority", other.issue("node")),
                            ("expired", self.authority.issue("expired", days=-1))):
            with self.subTest(what=what):
                answer, why = strangers.tls_call(address, hello, cert=files.get("cert"), key=files.get("key"))
                self.assertEqual(answer, b"")
                self.assertTrue(why)
                rows.write()
        said = warnings_with(cluster.primary, "TLS")
        self.assertTrue(said)
        self.assertLessEqual(len(said), 4, said)
        for node in cluster.nodes:
            for what, data in strangers.garbage(strangers.FOLLOW):
                with self.subTest(node=node.name, what=what):
                    answer = strangers.send(f"127.0.0.1:{node.port}", data)
                    self.assertNotIn(b"grpc", answer)
                    rows.write()
        # And garbage from one who has a certificate.
        for what, data in strangers.garbage(strangers.FOLLOW):
            with self.subTest(what="encrypted " + what):
                if data:
                    strangers.tls_call(address, data, **self.files)
                rows.write()
        cluster.wait_converged()

    def test_nodes_that_do_not_fit_in(self):
        cluster = self.tls_cluster()
        rows = Replicated(cluster.primary, cluster.replicas)
        other = certificates.Authority(self.directory, "other")
        wrong_name = self.authority.issue("elsewhere", names="DNS:elsewhere.example")
        for name, tls in (("x", None), ("y", other.issue("node"))):
            directory = os.path.join(self.directory, "of-" + name)
            os.mkdir(directory)
            config = write_config(directory, {"grpc": {"tls": tls} if tls else {}})
            node = harness.Node(self.directory, name, harness.free_port(), cluster.primary.port,
                                arguments=["--config", config])
            node.start(wait=False)
            self.addCleanup(node.stop)
            wait_for(lambda node=node: "no connection to the primary" in node.log_text(), f"{name} to be refused")
            rows.write()
            self.assertFalse(os.path.exists(node.path(NAME)))
        # A primary whose certificate is for another name is not believed.
        port = harness.free_port()
        directory = os.path.join(self.directory, "elsewhere")
        os.mkdir(directory)
        config = write_config(directory, {"grpc": {"tls": wrong_name}})
        primary = harness.Node(directory, "p", port, port, arguments=["--config", config]).start()
        self.addCleanup(primary.stop)
        replica = harness.Node(directory, "r", harness.free_port(), port, arguments=["--config", config])
        replica.start(wait=False)
        self.addCleanup(replica.stop)
        wait_for(lambda: "no connection to the primary" in replica.log_text(), "the replica to say that")

    def test_certificates_that_are_replaced(self):
        cluster = self.tls_cluster()
        rows = Replicated(cluster.primary, cluster.replicas)
        rows.write()
        old = self.authority.issue("old")
        address = f"127.0.0.1:{cluster.primary.port}"
        self.assert_let_in(address, old, ca=self.files["ca"])
        second = certificates.Authority(self.directory, "second")
        new = second.issue("node")
        # Half of it first: new connections fail, the cluster goes on, and the log says why.
        certificates.replace_files({**self.files, "cert": self.files["key"], "ca": old["ca"]}, {**new, "cert": new["key"], "ca": old["ca"]})
        wait_for(lambda: "does not belong to the certificate" in cluster.primary.log_text(), "an error in the log")
        rows.write()
        certificates.replace_files(self.files, new)
        for node in cluster.nodes:
            wait_for(lambda node=node: "new connections use them" in node.log_text(), f"{node.name} to say so")
        wait_for(lambda: strangers.tls_call(address, strangers.PREFACE + strangers.frame(4, b""), **new)[0],
                 "the new certificate to be in use")
        answer, _ = strangers.tls_call(address, strangers.PREFACE + strangers.frame(4, b""), cert=old["cert"],
                                       key=old["key"])
        self.assertEqual(answer, b"")
        rows.write()
        following = [line for line in cluster.replica.log_text().splitlines() if "following a" in line]
        self.assertEqual(len(following), 1, "the old connection was to stay")
        cluster.replica.stop()
        cluster.replica.start()
        rows.write()

    def test_files_that_cannot_be_used(self):
        other = certificates.Authority(self.directory, "other").issue("node")
        open_key = {**self.files, "key": self.files["key"] + ".open"}
        with open(self.files["key"], "rb") as key, open(open_key["key"], "wb") as copy:
            copy.write(key.read())
        os.chmod(open_key["key"], 0o644)
        base = {"fuse": {"dir": os.path.join(self.directory, "mnt")}, "data": {"dir": os.path.join(self.directory, "d")},
                "lease": {"primary": "127.0.0.1:1"}}
        for tls, *words in (({**self.files, "key": other["key"]}, "does not belong to the certificate"),
                            ({**self.files, "ca": other["ca"]}, "is not from the authority"),
                            ({**self.files, "cert": self.files["key"]}, "is no PEM file with certificates"),
                            ({**self.files, "key": self.files["cert"]}, "is no PEM file with a private key"),
                            ({**self.files, "ca": "/nowhere/ca.crt"}, "/nowhere/ca.crt", "No such file"),
                            (open_key, "chmod 600"),
                            ({"ca": self.files["ca"]}, "grpc.tls.cert and grpc.tls.key is missing")):
            config = write_config(self.directory, {**base, "grpc": {"listen": "127.0.0.1:1", "tls": tls}})
            done = run([harness.ECHOFS, "config", "check", "--config", config], check=False)
            self.assertEqual(done.returncode, 2, (tls, done))
            for word in words:
                self.assertIn(word, done.stderr)
        config = write_config(self.directory, {**base, "grpc": {
            "listen": "127.0.0.1:1", "tls": self.authority.issue("expired", days=-1)}})
        self.assertIn("is not valid any more", run([harness.ECHOFS, "config", "check", "--config", config]).stdout)


class TlsFailoverTest(members.MembersTest):
    """Everything secured, and the primary is lost."""

    def failover(self, lease, settings):
        cluster = members.Members(self.directory, lease, 3, settings=settings)
        self.addCleanup(self._stop_members, cluster)
        cluster.start()
        clients = self.clients(cluster, NAME)
        leader = cluster.leader()
        cluster.wait_followed(leader)
        self.client_of(clients, leader).wait_records(50)
        leader.echofs("handoff")
        leader = cluster.leader()
        self.client_of(clients, leader).wait_records(50)
        lost = self.client_of(clients, leader)
        leader.kill()
        successor = cluster.leader()
        self.client_of(clients, successor).wait_records(50)
        said = lost.log_text()
        lost.wait_gone(said[:0])
        leader.start()
        for client in clients:
            client.stop()
        self.check_acknowledged(cluster, clients, NAME)

    def test_r6_failover_with_tls_and_token_on_nodes_and_lease_server(self):
        authority = certificates.Authority(self.directory, "ca")
        token = certificates.token_file(self.directory)
        lease = members.LeaseServer(self.directory)
        own = authority.issue("lease")
        lease.options = ["--tls-cert", own["cert"], "--tls-key", own["key"], "--tls-ca", own["ca"],
                         "--token-file", token]
        self.failover(lease, {"grpc": {"tls": authority.issue("node"), "token-file": token}})

    def test_r6_failover_with_etcd_over_tls(self):
        authority = certificates.Authority(self.directory, "ca")
        of_etcd = certificates.Authority(self.directory, "etcd-ca")
        lease = members.Etcd(self.directory)
        lease.use_tls(of_etcd.issue("etcd"))
        client = of_etcd.issue("client")
        self.failover(lease, {"grpc": {"tls": authority.issue("node")}, "lease": {"tls": client}})
        # Without a certificate etcd is not to be had.
        stranger = members.Member(self.directory, "x", lease, settings={"lease": {"tls": {"ca": client["ca"]}}})
        stranger.start(wait=False)
        self.addCleanup(stranger.stop)
        wait_for(lambda: "lease service cannot be asked" in stranger.echofs("status", check=False).stdout
                 or "etcd at" in stranger.log_text(), "the stranger to say that")
