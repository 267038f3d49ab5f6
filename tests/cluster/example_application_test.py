"""The sample application of docker/example on a primary and a replica."""

import os
import urllib.error
import urllib.request

import harness
from harness import free_port, wait_for

NOTES = os.path.join(os.path.dirname(__file__), "../../docker/example/notes.py")


class KeepRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class ExampleApplicationTest(harness.ClusterTest):
    def start(self, node):
        port = free_port()
        with open(os.path.join(self.directory, f"notes-{node.name}.log"), "ab") as log:
            self.spawn(["/usr/bin/python3", NOTES, "--database", node.path("notes.db"), "--port", str(port)],
                       stderr=log)
        wait_for(lambda: self.request(port)[0] == 200, f"the application on {node.name}")
        return port

    def request(self, port, body=None):
        """Status, text and Location of the answer; status None while nobody listens."""
        opener = urllib.request.build_opener(KeepRedirect, urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{port}/", body, timeout=harness.WAIT_SECONDS) as answer:
                return answer.status, answer.read().decode(), None
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers["Location"]
        except (urllib.error.URLError, ConnectionError):
            return None, "", None

    def test_notes_are_kept_on_the_primary_and_seen_on_the_replica(self):
        cluster = self.cluster()
        primary, replica = self.start(cluster.primary), self.start(cluster.replica)
        self.assertEqual(self.request(replica)[1], "")
        self.assertEqual(self.request(primary, b"buy milk")[0], 201)
        wait_for(lambda: self.request(replica)[:2] == (200, "buy milk\n"), "the note on the replica")
        code, _, location = self.request(replica, b"more")
        self.assertEqual((code, location), (307, f"http://a:{replica}/"))
        self.assertEqual(self.request(primary, b"x" * 10001)[0], 413)
        self.assertEqual(self.request(primary)[1], "buy milk\n")
