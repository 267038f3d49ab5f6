"""What a service manager hears of real nodes and of the lease server: systemd's sd_notify protocol."""

import os
import signal
import socket
import struct

import harness
from harness import ECHOFS, free_port, wait_for

READY, WATCHDOG, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


class ServiceManager:
    """The socket that NOTIFY_SOCKET names."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(path)
        self.socket.setblocking(False)
        self.messages = []
        self.senders = set()

    def prefix(self, watchdog_seconds=None):
        """What to put before a command that it shall start."""
        words = ["env", f"NOTIFY_SOCKET={self.path}"]
        if watchdog_seconds is not None:
            words.append(f"WATCHDOG_USEC={watchdog_seconds * 1000000}")
        return words

    def receive(self):
        while True:
            try:
                message, credentials, _, _ = self.socket.recvmsg(256, 256)
            except BlockingIOError:
                return self.messages
            self.messages.append(message.decode())
            self.senders.add(struct.unpack("3i", credentials[0][2])[0])

    def count(self, message):
        return self.receive().count(message)

    def wait_for(self, message, count=1):
        wait_for(lambda: self.count(message) >= count, lambda: f"{count} {message} in {self.messages}")


class ServiceManagerTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.manager = ServiceManager(os.path.join(self.directory, "notify"))
        self.addCleanup(self.manager.socket.close)

    def test_mount_says_that_it_is_ready_that_it_lives_and_that_it_stops(self):
        node = self.node("alone", prefix=self.manager.prefix(watchdog_seconds=3))
        node.start()
        self.manager.wait_for(WATCHDOG, 3)
        guardian = node.guardian
        node.execute("app.db", "CREATE TABLE t(x)")
        self.assertEqual(node.stop(), 0)
        self.assertEqual(self.manager.receive()[0], READY)
        self.assertEqual(self.manager.messages[-1], STOPPING)
        self.assertEqual(set(self.manager.messages[1:-1]), {WATCHDOG})
        self.assertEqual(self.manager.senders, {guardian})
        self.assertNotIn("in use by", node.log_text())

    def test_the_watchdog_of_a_replica_is_answered_while_its_daemon_serves(self):
        cluster = self.cluster(start=False)
        cluster.replica.prefix = self.manager.prefix(watchdog_seconds=3)
        cluster.start()
        self.manager.wait_for(WATCHDOG, 2)
        daemon = cluster.replica.daemon()
        os.kill(daemon, signal.SIGSTOP)
        wait_for(lambda: ".lag cannot be read" in cluster.replica.log_text(), "a probe that hangs")
        answered = self.manager.count(WATCHDOG)
        os.kill(daemon, signal.SIGCONT)
        self.manager.wait_for(WATCHDOG, answered + 2)
        self.assertIn(".lag can be read again", cluster.replica.log_text())

    def test_commands_do_not_inherit_the_socket(self):
        node = self.node("alone", prefix=self.manager.prefix(watchdog_seconds=3))
        node.command = ["sh", "-c", f"env > {self.directory}/environment"]
        node.start(wait=False)
        self.assertEqual(node.wait_end(), 0)
        with open(f"{self.directory}/environment", encoding="utf-8") as file:
            self.assertNotRegex(file.read(), "NOTIFY_SOCKET|WATCHDOG")
        self.assertEqual([m for m in self.manager.receive() if m != WATCHDOG], [READY, STOPPING])

    def test_the_lease_server_says_that_it_is_ready_and_that_it_stops(self):
        server = self.spawn([*self.manager.prefix(), ECHOFS, "lease-server", "--listen",
                             f"127.0.0.1:{free_port()}", "--data-dir", os.path.join(self.directory, "lease")])
        self.manager.wait_for(READY)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(harness.WAIT_SECONDS), 0)
        self.assertEqual(self.manager.receive(), [READY, STOPPING])
        self.assertEqual(self.manager.senders, {server.pid})
