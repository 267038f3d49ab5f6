"""Running nodes, for bench.py."""

import json
import os
import re
import signal
import socket
import subprocess
import time

WAIT_SECONDS = 90


class Failed(Exception):
    pass


def wait_for(what, condition, pause=0.02):
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"gave up waiting for {what}")
        time.sleep(pause)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def read_text(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


class Node:
    """A running `echofs mount`. `primary_port` is of the primary of a static lease; None: `config` has another."""

    def __init__(self, echofs, directory, name, port, primary_port, config=""):
        self.echofs, self.name, self.port = echofs, name, port
        self.mount = os.path.join(directory, name, "mnt")
        self.data = os.path.join(directory, name, "data")
        self.log = os.path.join(directory, name, "log")
        os.makedirs(self.mount)
        os.makedirs(self.data)
        self.command = [echofs, "mount", "--fuse-dir", self.mount, "--data-dir", self.data, "--node-id", name,
                        "--http-listen", "127.0.0.1:0", "--grpc-listen", f"127.0.0.1:{port}",
                        "--grpc-advertise", f"127.0.0.1:{port}"]
        if primary_port is not None:
            self.command += ["--lease-primary", f"127.0.0.1:{primary_port}"]
        if config:
            path = os.path.join(directory, name, "echofs.yml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(config)
            self.command += ["--config", path]
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def state(self):
        text = self.status("--json")
        return json.loads(text) if text else {}

    def daemon(self):
        return int(re.search(r"process (\d+)", self.status()).group(1))

    def status(self, *arguments):
        run = subprocess.run([self.echofs, "status", "--data-dir", self.data, *arguments],
                             capture_output=True, text=True, timeout=30)
        return run.stdout if run.returncode == 0 else ""

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"node {self.name} ended: {read_text(self.log)[-2000:]}")
        return self.state().get("ready", False)

    def wait_until_ready(self):
        wait_for(f"node {self.name}", self.is_ready)
        return self

    def position(self, database):
        return read_text(os.path.join(self.mount, database + "-pos"))

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.path.ismount(self.mount):
            subprocess.run(["fusermount3", "-u", "-z", self.mount], check=False)


class LeaseServer:
    """A running `echofs lease-server`."""

    def __init__(self, echofs, directory):
        os.makedirs(directory, exist_ok=True)
        self.endpoint = f"127.0.0.1:{free_ports(1)[0]}"
        with open(os.path.join(directory, "lease-server.log"), "wb") as log:
            self.process = subprocess.Popen([echofs, "lease-server", "--listen", self.endpoint, "--data-dir",
                                             os.path.join(directory, "lease-server")], stdout=log, stderr=log)

    def config(self, ttl_seconds, candidate=True):
        """What a node's configuration says of it."""
        return (f'lease: {{ type: service, endpoints: [ "{self.endpoint}" ], ttl: {ttl_seconds}s, '
                f"candidate: {str(candidate).lower()} }}\n")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
