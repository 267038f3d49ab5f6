"""TLS on the ports: who has no certificate of the authority is refused, and certificates are replaced while the cluster runs."""

import json
import os
import sqlite3
import time

import certificates
import harness
import members
import port_checks
import strangers
from port_checks import NAME
from processes import run, wait_for


class TlsTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.authority = certificates.Authority(self.directory, "ca")
        self.files = self.authority.issue("node")

    def tls_cluster(self, replicas=1):
        config = port_checks.write_config(self.directory, {"grpc": {"tls": self.files}})
        return self.cluster(replicas, arguments=["--config", config])

    def assert_let_in(self, address, files, ca=None):
        answer, why = strangers.tls_call(address, strangers.PREFACE + strangers.frame(4, b""), ca or files["ca"],
                                         files["cert"], files["key"])
        self.assertTrue(answer, why)

    def test_whoever_has_no_certificate_of_the_authority(self):
        cluster = self.tls_cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
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
        said = port_checks.warnings_with(cluster.primary, "TLS")
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
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
        other = certificates.Authority(self.directory, "other")
        wrong_name = self.authority.issue("elsewhere", names="DNS:elsewhere.example")
        for name, tls in (("x", None), ("y", other.issue("node"))):
            directory = os.path.join(self.directory, "of-" + name)
            os.mkdir(directory)
            config = port_checks.write_config(directory, {"grpc": {"tls": tls} if tls else {}})
            node = harness.Node(self.directory, name, harness.free_port(), cluster.primary.port,
                                arguments=["--config", config])
            node.start(wait=False)
            self.addCleanup(node.stop)
            wait_for(lambda node=node: "no connection to the primary" in node.log_text(), f"{name} to be refused")
            rows.write()
            self.assertFalse(os.path.exists(node.path(NAME)))
            self.assertIn(f"{name} is up as replica, not ready yet", node.log_text())
            self.assertIn("secured by TLS" if tls else "secured by nothing", node.log_text())
        # A primary whose certificate is for another name is not believed.
        port = harness.free_port()
        directory = os.path.join(self.directory, "elsewhere")
        os.mkdir(directory)
        config = port_checks.write_config(directory, {"grpc": {"tls": wrong_name}})
        primary = harness.Node(directory, "p", port, port, arguments=["--config", config]).start()
        self.addCleanup(primary.stop)
        replica = harness.Node(directory, "r", harness.free_port(), port, arguments=["--config", config])
        replica.start(wait=False)
        self.addCleanup(replica.stop)
        wait_for(lambda: "no connection to the primary" in replica.log_text(), "the replica to say that")

    def test_certificates_that_are_replaced(self):
        cluster = self.tls_cluster()
        rows = port_checks.Replicated(cluster.primary, cluster.replicas)
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
        no_key = os.path.join(self.directory, "no.key")
        with open(self.files["cert"], "rb") as cert, open(no_key, "wb") as copy:
            copy.write(cert.read())
        os.chmod(no_key, 0o600)
        base = {"fuse": {"dir": os.path.join(self.directory, "mnt")}, "data": {"dir": os.path.join(self.directory, "d")},
                "lease": {"primary": "127.0.0.1:1"}}
        for tls, *words in (({**self.files, "key": other["key"]}, "does not belong to the certificate"),
                            ({**self.files, "ca": other["ca"]}, "is not from the authority"),
                            ({**self.files, "cert": self.files["key"]}, "is no PEM file with certificates"),
                            ({**self.files, "key": no_key}, "is no PEM file with a private key"),
                            ({**self.files, "ca": "/nowhere/ca.crt"}, "/nowhere/ca.crt", "No such file"),
                            (open_key, "chmod 600"),
                            ({"ca": self.files["ca"]}, "grpc.tls.cert and grpc.tls.key is missing")):
            config = port_checks.write_config(self.directory, {**base, "grpc": {"listen": "127.0.0.1:1", "tls": tls}})
            done = run([harness.ECHOFS, "config", "check", "--config", config], check=False)
            self.assertEqual(done.returncode, 2, (tls, done))
            for word in words:
                self.assertIn(word, done.stderr)
        config = port_checks.write_config(self.directory, {**base, "grpc": {
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
        # Without a certificate etcd is not to be had, nor with one from another authority.
        for name, tls in (("x", {"ca": client["ca"]}), ("y", {**authority.issue("stranger"), "ca": client["ca"]})):
            stranger = members.Member(self.directory, name, lease, settings={"lease": {"tls": tls}})
            stranger.start(wait=False)
            self.addCleanup(stranger.stop)
            wait_for(lambda stranger=stranger: "the lease service cannot be asked: etcd at" in stranger.log_text(),
                     "the stranger to say that")
            self.assertIn("It does not take the certificate that this side shows, or wants one", stranger.log_text())
            self.assertNotIn("gRPC: ", stranger.log_text())


class TlsMembersTest(members.MembersTest):
    """What a node does by calling others, which want a certificate and the token."""

    def setUp(self):
        super().setUp()
        self.authority = certificates.Authority(self.directory, "ca")
        self.files = self.authority.issue("node")
        token = certificates.token_file(self.directory)
        lease = members.LeaseServer(self.directory)
        own = self.authority.issue("lease")
        lease.options = ["--tls-cert", own["cert"], "--tls-key", own["key"], "--tls-ca", own["ca"], "--token-file", token]
        self.members = members.Members(self.directory, lease, 3, settings={
            "grpc": {"tls": self.files, "token-file": token}})
        self.addCleanup(self._stop_members, self.members)
        self.members.start()
        self.leader = self.members.leader()
        self.members.wait_followed(self.leader)
        self.source = os.path.join(self.directory, "source.db")
        with sqlite3.connect(self.source) as source:
            source.execute("CREATE TABLE t(x)")
            source.execute("INSERT INTO t VALUES (?)", (os.urandom(5_000_000),))
        source.close()

    def test_import_by_a_replica(self):
        for replica in self.members.others(self.leader):
            replica.echofs("import", "app.db", self.source, "--replace")
            self.members.wait_converged()
        for node in self.members.running():
            self.assertEqual(node.execute("app.db", "SELECT count(*), sum(length(x)) FROM t"), [(1, 5_000_000)])
        self.assertEqual(self.leader.databases()["app.db"]["txid"], "0000000000000002")

    def test_verify_and_repair(self):
        self.leader.echofs("import", "app.db", self.source)
        self.members.wait_converged()
        for node in self.members.running():
            copies = json.loads(node.echofs("verify", "--full", "--json").stdout)["copies"]
            self.assertEqual({(copy["node"], copy["result"]) for copy in copies},
                             {(each.name, "equal") for each in self.members.running()})
        replica = self.members.others(self.leader)[0]
        with open(os.path.join(replica.data, "files", NAME), "r+b") as file:
            file.seek(2_500_000)
            file.write(b"damaged")
        self.assertEqual(replica.echofs("verify", "--full", check=False).returncode, 1)
        copies = json.loads(replica.echofs("verify", "--full", "--repair", "--json").stdout)["copies"]
        self.assertIn((replica.name, "repaired"), {(copy["node"], copy["result"]) for copy in copies})

    def test_replaced_certificates_are_said_once(self):
        """The same files are for the other nodes and for the lease server."""
        certificates.replace_files(self.files, self.authority.issue("later"))
        for node in self.members.running():
            wait_for(lambda node=node: "new connections use them" in node.log_text(), f"{node.name} to say so")
        time.sleep(3)  # looks every second
        for node in self.members.running():
            self.assertEqual(node.log_text().count("new connections use them"), 1, node.log_text())
