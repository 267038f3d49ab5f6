"""The Debian package, built, installed and used in a fresh system. In the long form only: it takes minutes."""

import os
import re
import shutil
import signal
import subprocess
import unittest

import harness
from harness import run, wait_for
from processes import LONG

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD_SECONDS = 3000
CONFIG = ["--config", "/etc/echofs/echofs.yml"]


def this_system():
    """Name of this machine's release, where its packages come from, and the components that are used."""
    with open("/etc/os-release", encoding="utf-8") as file:
        release = re.search(r"^VERSION_CODENAME=(\w+)", file.read(), re.MULTILINE).group(1)
    targets = run(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI) $(COMPONENT)"]).stdout
    found = [line.split() for line in targets.splitlines() if line.startswith(f"{release} ")]
    assert found, f"apt has no source for {release}"
    return release, found[0][1], ",".join(sorted({component for _, _, component in found}))


class System:
    """A fresh installation in a directory."""

    def __init__(self, directory):
        self.root = directory
        release, mirror, components = this_system()
        run(["debootstrap", "--variant=minbase", f"--components={components}", release, directory, mirror],
            seconds=BUILD_SECONDS)
        shutil.copy("/etc/resolv.conf", self.path("/etc/resolv.conf"))
        run(["mount", "-t", "proc", "proc", self.path("/proc")])
        if not os.path.exists(self.path("/dev/fuse")):
            run(["mknod", "-m", "666", self.path("/dev/fuse"), "c", "10", "229"])

    def path(self, name):
        return self.root + name

    def command(self, *words):
        return ["chroot", self.root, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                "DEBIAN_FRONTEND=noninteractive", "CCACHE_DIR=/ccache", *words]

    def run(self, *words, check=True):
        return run(self.command(*words), seconds=BUILD_SECONDS, check=check)

    def install(self, *packages):
        self.run("apt-get", "update", "-qq")
        self.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)

    def end(self):
        run(["umount", self.path("/proc")])


@unittest.skipUnless(LONG, "in ./dev long only")
@unittest.skipUnless(shutil.which("debootstrap"), "debootstrap is not installed")
@harness.needs_root
class PackageTest(harness.ClusterTest):
    def system(self, name):
        system = System(os.path.join(self.directory, name))
        self.addCleanup(system.end)
        return system

    def build(self):
        """Path of the package."""
        said = run([os.path.join(ROOT, "dev"), "package"], seconds=BUILD_SECONDS).stdout
        return os.path.join(ROOT, said.splitlines()[-1].removeprefix("the package is "))

    def test_lintian_finds_no_error(self):
        if not shutil.which("lintian"):
            self.skipTest("lintian is not installed")
        done = run(["lintian", "--allow-root", "--fail-on", "error", self.build()], check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_it_is_installed_used_and_removed_in_a_fresh_system(self):
        package = self.build()
        system = self.system("root")
        shutil.copy(package, system.path("/echofs.deb"))
        system.install("/echofs.deb", "sqlite3")
        self.assertRegex(system.run("echofs", "version").stdout, r"^echofs \d+\.\d+\.\d+\n$")
        for name in ("/usr/lib/systemd/system/echofs.service", "/usr/share/man/man1/echofs.1.gz",
                     "/usr/lib/systemd/system/echofs-lease-server.service",
                     "/usr/share/bash-completion/completions/echofs"):
            self.assertTrue(os.path.exists(system.path(name)), name)
        self.assertIn("/etc/echofs/echofs.yml",
                      system.run("dpkg-query", "-W", "-f", "${Conffiles}", "echofs").stdout)
        self.assertEqual(os.listdir(system.path("/var/lib/echofs/data")), [], "something was started")
        system.run("echofs", "config", "check", *CONFIG)

        self.use(system, "CREATE TABLE t(x); INSERT INTO t VALUES (1)")
        # Another installation, as an upgrade is, and the database is there still.
        system.run("apt-get", "install", "-y", "--reinstall", "/echofs.deb")
        self.assertEqual(self.use(system, "INSERT INTO t VALUES (2); SELECT x FROM t"), "1\n2\n")

        system.run("apt-get", "purge", "-y", "echofs")
        self.assertFalse(os.path.exists(system.path("/etc/echofs/echofs.yml")))
        self.assertTrue(os.path.exists(system.path("/var/lib/echofs/data/files/app.db")))

    def use(self, system, statements):
        """Runs the node with the package's configuration, and the statements in its mount."""
        with open(os.path.join(self.directory, "echofs.log"), "ab") as log:
            node = self.spawn(system.command("echofs", "mount", *CONFIG), stderr=log, cwd="/")

        def ready():
            self.assertIsNone(node.poll(), "the node ended")
            return '"ready": true' in system.run("echofs", "status", "--json", *CONFIG, check=False).stdout

        wait_for(ready, "the node to be ready")
        rows = system.run("sqlite3", "/var/lib/echofs/mnt/app.db", statements).stdout
        node.send_signal(signal.SIGTERM)
        self.assertEqual(node.wait(harness.WAIT_SECONDS), 0)
        return rows

    def test_the_build_stage_of_the_dockerfile_makes_the_package(self):
        with open(os.path.join(ROOT, "docker/Dockerfile"), encoding="utf-8") as file:
            stage = file.read().split("\nFROM ")[1]
        self.assertIn("COPY . .", stage)
        (directory,) = re.findall(r"^WORKDIR (\S+)$", stage, re.MULTILINE)
        commands = re.findall(r"^RUN (.*)$", stage, re.MULTILINE)
        self.assertTrue(commands)
        system = self.system("build")
        files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                               capture_output=True, check=True).stdout
        os.makedirs(system.path(directory))
        subprocess.run(["tar", "-C", ROOT, "--null", "-T", "-", "-cf", os.path.join(self.directory, "source.tar")],
                       input=files, check=True)
        run(["tar", "-C", system.path(directory), "-xf", os.path.join(self.directory, "source.tar")])
        for command in commands:
            system.run("sh", "-c", f"cd {directory} && {command}")
        found = [name for name in os.listdir(system.path(f"{directory}/build/package")) if name.endswith(".deb")]
        self.assertEqual(len(found), 1)
