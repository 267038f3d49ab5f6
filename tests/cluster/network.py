"""Hosts of a private network, each a network namespace, whose ways to each other can be cut. For root."""

import os
import shutil
import subprocess
import unittest

needs_namespaces = unittest.skipUnless(
    os.geteuid() == 0 and shutil.which("ip") and shutil.which("nsenter"),
    "network namespaces need root, iproute2 and nsenter")


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)


def remove_leftovers():
    """Namespaces of tests that were killed."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
        if not name.startswith("efs"):
            continue
        pid = name[3:].split("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            ip("netns", "del", name, check=False)


class Network:
    """All in namespaces of its own; nothing outside is touched."""

    def __init__(self, hosts):
        remove_leftovers()
        self.tag = f"efs{os.getpid()}"
        self.hub = self.tag + "-hub"
        self.addresses = {host: f"10.99.0.{i + 1}" for i, host in enumerate(hosts)}
        self.cuts = set()
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        ip("-n", self.hub, "link", "set", "br0", "up")
        for number, (host, address) in enumerate(self.addresses.items()):
            namespace = self.namespace(host)
            ip("netns", "add", namespace)
            ip("-n", self.hub, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0",
               "netns", namespace)
            ip("-n", self.hub, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "addr", "add", address + "/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")

    def namespace(self, host):
        return f"{self.tag}-{host}"

    def prefix(self, host):
        """What to put before a command that is to run on this host. Its files stay those of everybody."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(host)}"]

    def cut(self, host, others):
        """Nothing goes from `host` to the others any more, nor back."""
        for other in others:
            for source, target in ((host, other), (other, host)):
                if (source, target) not in self.cuts:
                    self.cuts.add((source, target))
                    ip("-n", self.namespace(source), "route", "add", "blackhole",
                       self.addresses[target] + "/32")

    def heal(self):
        for source, target in self.cuts:
            ip("-n", self.namespace(source), "route", "del", "blackhole",
               self.addresses[target] + "/32")
        self.cuts.clear()

    def remove(self):
        for namespace in (*map(self.namespace, self.addresses), self.hub):
            ip("netns", "del", namespace, check=False)
