"""HTTP of real nodes: metrics, health, info and events (design section 11)."""

import contextlib
import json
import os
import re
import socket
import sqlite3

import harness
import members
from harness import free_port, wait_for
from http_client import Events, Metrics, connect, get, get_json

ANY_PORT = "127.0.0.1:0"
NAME = "app.db"
ROOT = os.path.join(os.path.dirname(__file__), "../..")


def metrics_named_in(text):
    return set(re.findall(r"\bechofs_\w+", text))


class HttpTest(harness.ClusterTest):
    """With a static lease."""

    def test_metrics_grow_with_writes(self):
        cluster = self.cluster(http=ANY_PORT)
        before = Metrics(cluster.primary)
        self.assertEqual(before.get("echofs_role", role="primary"), 1)
        cluster.primary.execute(NAME, "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)",
                                *["INSERT INTO t VALUES (1)"] * 20)
        cluster.primary.execute("other.db", "CREATE TABLE t(x)")  # a rollback journal
        cluster.wait_converged()
        primary, replica = Metrics(cluster.primary), Metrics(cluster.replica)

        commits = "echofs_commit_duration_seconds_count"
        self.assertGreaterEqual(primary[commits] - before[commits], 22)
        self.assertGreater(primary["echofs_commit_duration_seconds_sum"], 0)
        self.assertGreater(primary.get("echofs_fuse_requests_total", operation="write"),
                           before.get("echofs_fuse_requests_total", operation="write"))
        self.assertEqual(replica["echofs_apply_duration_seconds_count"], primary[commits])
        self.assertEqual(replica["echofs_visible_lag_seconds_count"], primary[commits])
        self.assertEqual(replica["echofs_log_index"], primary["echofs_log_index"])
        self.assertEqual(replica["echofs_applied_index"], primary["echofs_log_index"])
        self.assertEqual(replica["echofs_connected"], 1)
        self.assertEqual(replica.get("echofs_role", role="replica"), 1)
        for metrics in (primary, replica):
            self.assertEqual(metrics["echofs_ready"], 1)
            self.assertEqual(metrics["echofs_digest_mismatches_total"], 0)
            self.assertEqual(metrics.get("echofs_databases", state="ok"), 2)
            self.assertEqual(metrics.get("echofs_database_txid", database=NAME),
                             int(cluster.primary.databases()[NAME]["txid"], 16))
            self.assertEqual(metrics.get("echofs_database_state", database=NAME, state="ok"), 1)
        self.assertEqual(primary.get("echofs_replica_lag_entries", replica="b"), 0)

    def test_an_error_that_an_application_sees_is_counted(self):
        cluster = self.cluster(replicas=0, http=ANY_PORT)
        cluster.primary.execute(NAME, "CREATE TABLE t(x)")
        self.assertEqual(Metrics(cluster.primary).get("echofs_fuse_errors_total", errno="EIO"), 0)
        with self.assertRaises(sqlite3.OperationalError):
            cluster.primary.execute(NAME, "PRAGMA journal_mode=MEMORY", "INSERT INTO t VALUES (1)")
        self.assertGreater(Metrics(cluster.primary).get("echofs_fuse_errors_total", errno="EIO"), 0)

    def test_a_replica_that_does_not_follow_shows_in_lag_and_health(self):
        cluster = self.cluster(start=False, http=ANY_PORT)
        replica = cluster.replica.start(wait=False)
        wait_for(lambda: replica.status() is not None, "the replica to answer")
        self.assertEqual(get_json(replica, "/health"), (200, {"status": "ok"}))
        status, answer = get_json(replica, "/health/ready")
        self.assertEqual((status, answer["status"]), (503, "not ready"))
        self.assertEqual(Metrics(replica)["echofs_ready"], 0)

        cluster.primary.start()
        replica.wait_ready()
        wait_for(lambda: "is ready as replica" in replica.log_text(), "the log to say that it is ready")
        self.assertEqual(get_json(cluster.primary, "/health/ready?max-lag=1s")[0], 200)
        wait_for(lambda: get(replica, "/health/ready?max-lag=30s")[0] == 200, "the replica's data to be new")
        cluster.primary.stop()
        wait_for(lambda: get(replica, "/health/ready?max-lag=1s")[0] == 503, "the replica's data to be old")
        self.assertIn("more than 1s", get_json(replica, "/health/ready?max-lag=1s")[1]["reason"])
        self.assertEqual(get(replica, "/health/ready")[0], 200)  # it serves what it has
        metrics = Metrics(replica)
        self.assertGreater(metrics["echofs_lag_seconds"], 1)
        self.assertEqual(metrics["echofs_connected"], 0)

    def test_info_and_what_is_not_there(self):
        cluster = self.cluster(replicas=0, http=ANY_PORT)
        node = cluster.primary
        status, info = get_json(node, "/info")
        self.assertEqual(status, 200)
        self.assertEqual((info["node"], info["role"], info["primary"]), ("a", "primary", "a"))
        self.assertEqual((info["data_dir"], info["protocol_version"]), (node.data, 1))
        status, answer = get_json(node, "/")
        self.assertEqual(status, 404)
        self.assertIn("/metrics", answer["paths"])
        with contextlib.closing(connect(node)) as connection:
            connection.request("POST", "/metrics", body=b"x")
            self.assertEqual(connection.getresponse().status, 405)

    def test_a_port_that_is_taken_is_a_clear_error(self):
        address = f"127.0.0.1:{free_port()}"
        node = self.node("a", http=address).start()
        self.assertEqual(node.status()["http"], address)
        other = self.node("b", http=address)
        other.start(wait=False)
        self.assertEqual(other.wait_end(), 1)
        self.assertRegex(other.log_text(), f"cannot listen on {address}: another process .*--http-listen.*'off'")
        self.assertFalse(harness.is_mounted(other.mount))
        self.assertEqual(node.stop(), 0)

    def test_a_reader_of_events_that_does_not_take_them_is_cut_off(self):
        cluster = self.cluster(replicas=0, http=ANY_PORT)
        node = cluster.primary
        with contextlib.closing(node.connect(NAME)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("CREATE TABLE t(x)")
            for _ in range(10_000):
                connection.execute("INSERT INTO t VALUES (1)")
        host, port = node.status()["http"].rsplit(":", 1)
        with contextlib.closing(socket.socket()) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(b"GET /events?from=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: Metrics(node)["echofs_http_slow_readers_total"] == 1, "the reader to be cut off")
            self.assertEqual(Metrics(node)["echofs_http_event_streams"], 0)
        node.execute(NAME, "INSERT INTO t VALUES (2)")


class HttpMembersTest(members.MembersTest):
    """With a lease server."""

    def test_dashboard_and_documents_name_what_nodes_export(self):
        cluster = self.members(count=2, min_sync_replicas=1, http=ANY_PORT)
        leader = cluster.leader()
        leader.execute(NAME, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t(x)")
        cluster.wait_converged()
        cluster.wait_followed(leader)
        metrics = Metrics(leader)
        self.assertGreater(metrics["echofs_sync_wait_duration_seconds_count"], 0)
        self.assertGreater(metrics["echofs_lease_expiry_seconds"], 0)
        self.assertEqual(metrics["echofs_in_sync_nodes"], 2)
        samples, families = set(), set()
        for node in cluster.running():
            metrics = Metrics(node)
            samples |= metrics.names()
            families |= set(metrics.types)
        with open(os.path.join(ROOT, "docker/grafana-dashboard.json"), encoding="utf-8") as file:
            shown = metrics_named_in(json.dumps(json.load(file)))
        self.assertGreater(len(shown), 20)
        self.assertLessEqual(shown, samples, "the dashboard shows metrics that nobody exports")
        with open(os.path.join(ROOT, "docs/operations.md"), encoding="utf-8") as file:
            self.assertEqual(metrics_named_in(file.read()), families)

    def test_events_have_each_transaction_once_across_handoffs_and_resumptions(self):
        cluster = self.members(http=ANY_PORT)
        clients = self.clients(cluster, NAME)
        watched = cluster.leader()
        seen, roles = [], []
        events = Events(watched, "?from=1")
        for round_number in range(4):
            leader = cluster.leader()
            cluster.wait_followed(leader)
            leader.echofs("handoff", "--to", cluster.others(leader)[0].name)
            wait_for(lambda leader=leader: leader.role() == "replica", "the handoff")
            end = watched.status()["log"]["index"]
            while not seen or seen[-1]["index"] < end:
                event = events.next("transaction", "term", "role")
                (roles if event["type"] == "role" else seen).append(event)
            if round_number % 2 == 1:  # anew, where the last one ended
                events.close()
                events = Events(watched, f"?from={seen[-1]['index'] + 1}&term={seen[-1]['term']}")
        for client in clients:
            client.stop()
        status = cluster.wait_converged()
        while seen[-1]["index"] < status["log"]["index"]:
            seen.append(events.next("transaction", "term"))
        events.close()

        self.assertEqual([event["index"] for event in seen], list(range(1, len(seen) + 1)))
        transactions = [event for event in seen if event["type"] == "transaction"]
        last = next(entry for entry in status["databases"] if entry["name"] == NAME)
        self.assertEqual([int(event["txid"], 16) for event in transactions],
                         list(range(1, int(last["txid"], 16) + 1)))
        self.assertEqual(transactions[-1]["digest"], last["digest"])
        # It may have stood for primary between two of the others' tenures.
        self.assertEqual({role["role"] for role in roles} - {"candidate"}, {"primary", "replica"})
        terms = {event["term"] for event in seen if event["type"] == "term"}
        self.assertGreaterEqual(len(terms), 5)
        # The same on a node that was not watched.
        other = Events(cluster.others(watched)[0], "?from=1")
        self.assertEqual([other.next("transaction", "term") for _ in seen], seen)
        other.close()
