"""Fossil, an unmodified application on SQLite, keeps its repository in the mount."""

import os
import urllib.request

import harness

FILES = 300
REPOSITORY = "project.fossil"


class FossilTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.environment = {**os.environ, "HOME": self.directory, "FOSSIL_HOME": self.directory,
                            "USER": "tester", "FOSSIL_USER": "tester"}
        self.checkout = os.path.join(self.directory, "checkout")
        os.mkdir(self.checkout)

    def fossil(self, *arguments, check=True):
        done = harness.run(["fossil", *arguments], cwd=self.checkout, env=self.environment,
                           check=check)
        return done.stdout

    def write_files(self, text):
        for number in range(FILES):
            folder = os.path.join(self.checkout, f"folder{number % 10}")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"file{number}.txt"), "w", encoding="utf-8") as file:
                file.write(f"{text} {number}\n" * (1 + number % 50))

    def commit_history(self, node, mode):
        """Some commits of some hundred files from a checkout outside the mount."""
        repository = node.path(REPOSITORY)
        self.fossil("init", repository)
        self.assertEqual(node.execute(REPOSITORY, f"PRAGMA journal_mode={mode}"), [(mode,)])
        self.fossil("open", "--force", repository)
        self.write_files("first text")
        self.fossil("add", ".")
        self.fossil("commit", "--no-warnings", "-m", "All files are here")
        self.write_files("second text")
        self.fossil("commit", "--no-warnings", "-m", "All files have changed")
        self.fossil("tag", "add", "release-1", "current")

    def timeline(self, node):
        return self.fossil("timeline", "-n", "0", "-t", "ci", "-R", node.path(REPOSITORY))

    def start_server(self, repository):
        """Returns the address of a `fossil serve`.

        Fossil notes its own address in the repository at the first request when it may write there, and on a
        replica it would wait 15 s for the lock. As a user without leave to write it only reads.
        """
        port = harness.free_port()
        home = os.path.join(self.directory, "home")
        os.mkdir(home)
        os.chown(home, harness.NOBODY, harness.NOBODY)
        with open(os.path.join(self.directory, "fossil.log"), "ab") as log:
            server = self.spawn([*harness.as_nobody(), "fossil", "serve", "--localhost", "--nojail",
                                 "--port", str(port), repository], stdout=log, stderr=log, cwd=home,
                                env={**self.environment, "HOME": home, "FOSSIL_HOME": home})

        def listens():
            self.assertIsNone(server.poll(), "fossil serve ended")
            with open(log.name, encoding="utf-8") as text:
                return "Listening" in text.read()

        harness.wait_for(listens, "fossil serve")
        return f"http://127.0.0.1:{port}"

    def get(self, url):
        with urllib.request.urlopen(url, timeout=harness.WAIT_SECONDS) as answer:
            self.assertEqual(answer.status, 200)
            return answer.read().decode()

    def read_and_serve(self, mode):
        cluster = self.cluster()
        self.commit_history(cluster.primary, mode)
        self.assertEqual(cluster.wait_converged(), [REPOSITORY])
        self.assertEqual(cluster.replica.journal_mode(REPOSITORY), mode)

        expected = self.timeline(cluster.primary)
        self.assertIn("All files are here", expected)
        self.assertIn("All files have changed", expected)
        self.assertEqual(self.timeline(cluster.replica), expected)

        address = self.start_server(cluster.replica.path(REPOSITORY))
        page = self.get(address + "/timeline?n=50")
        self.assertIn("All files are here", page)
        self.assertIn("All files have changed", page)
        # A commit while the server runs is served as well.
        self.write_files("third text")
        self.fossil("commit", "--no-warnings", "-m", "A commit behind the server")
        cluster.wait_positions()
        self.assertIn("A commit behind the server", self.get(address + "/timeline?n=50"))
        self.assertIn("third text 7", self.get(address + "/doc/tip/folder7/file7.txt"))
        cluster.wait_converged()

    @harness.needs_root
    def test_history_is_read_and_served_on_the_replica_in_delete_mode(self):
        self.read_and_serve("delete")

    @harness.needs_root
    def test_history_is_read_and_served_on_the_replica_in_wal_mode(self):
        self.read_and_serve("wal")
