"""The files of docker/: they parse, what they name exists, and echofs accepts their commands and configurations."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import tomllib
except ImportError:
    tomllib = None

import yaml

ECHOFS = os.environ["ECHOFS"]
ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
DOCKER = os.path.join(ROOT, "docker")
sys.path.insert(0, os.path.join(ROOT, "tests"))
import check_docs  # noqa: E402

# What a container's runtime, or Fly's, sets.
ENVIRONMENT = {"HOSTNAME": "a", "FLY_MACHINE_ID": "e2865", "FLY_APP_NAME": "my-app",
               "LEASE_SERVER": "my-lease.internal:20210"}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def documents(path):
    return list(yaml.safe_load_all(read(path)))


def values(node, key):
    """All values of a key at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from values(item, key)


class DeploymentTest(unittest.TestCase):
    def check_config(self, path):
        done = subprocess.run([ECHOFS, "config", "check", "--config", path], text=True, capture_output=True,
                              timeout=60, check=False, env={**os.environ, **ENVIRONMENT})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def check_command(self, words):
        """The words after "echofs"."""
        self.assertEqual(check_docs.Program(ECHOFS).check(list(words)), "")

    def test_configurations_are_valid(self):
        paths = glob.glob(f"{DOCKER}/*/echofs.yml")
        self.assertGreaterEqual(len(paths), 4)
        for path in paths:
            self.assertIn("valid", self.check_config(path))

    def test_the_cluster_that_the_default_configuration_shows_is_valid(self):
        lines = read(f"{DOCKER}/debian/echofs.yml").splitlines()
        shown = [re.sub(r"^# (\w+: +\{)", r"\1", line) for line in lines]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write("\n".join(shown))
            file.flush()
            self.assertIn("candidate", self.check_config(file.name))

    def test_what_the_dockerfile_copies_exists(self):
        text = read(f"{DOCKER}/Dockerfile").replace("\\\n", " ")
        stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))
        copies = re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE)
        self.assertGreaterEqual(len(copies), 3)
        for source in copies:
            self.assertTrue(os.path.exists(os.path.join(ROOT, source)), source)
        for stage in re.findall(r"from=(\w+)", text):
            self.assertIn(stage, stages)
        # The default target is the node alone.
        self.assertTrue(text.rstrip().endswith("AS echofs"))
        words = yaml.safe_load(re.search(r"^CMD (.*)$", text, re.MULTILINE).group(1))
        self.check_command(words)

    def test_what_the_ignore_file_keeps_out_is_not_needed(self):
        ignored = read(f"{DOCKER}/Dockerfile.dockerignore").split()
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
        for path in tracked.stdout.split():
            self.assertNotIn(path.split("/")[0], ignored)

    def test_compose(self):
        path = f"{DOCKER}/compose/compose.yaml"
        (compose,) = documents(path)
        nodes = [service for service in compose["services"].values() if "build" in service]
        self.assertEqual(sorted(node["hostname"] for node in nodes), ["a", "b", "c"])
        for node in nodes:
            context = os.path.join(os.path.dirname(path), node["build"]["context"])
            dockerfile = read(os.path.join(context, node["build"]["dockerfile"]))
            self.assertRegex(dockerfile, rf"(?m)^FROM \S+ AS {node['build']['target']}$")
            self.assertEqual(node["devices"], ["/dev/fuse"])
            self.check_command(node["healthcheck"]["test"][2:])
            (volume,) = node["volumes"]
            self.assertIn(volume.split(":")[0], compose["volumes"])

    def test_kubernetes(self):
        parts = [part for path in glob.glob(f"{DOCKER}/kubernetes/*.yaml") for part in documents(path)]
        self.assertEqual(sorted(part["kind"] for part in parts),
                         ["ConfigMap", "Service", "Service", "StatefulSet", "StatefulSet"])
        for config in values(parts, "echofs.yml"):
            with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
                file.write(config)
                file.flush()
                self.check_config(file.name)
        commands = 0
        for kind in ("containers", "initContainers"):
            for container in (entry for found in values(parts, kind) for entry in found):
                if container["image"].startswith("echofs:") and "args" in container:
                    self.check_command(container["args"])
                    commands += 1
        for command in values(parts, "command"):
            text = command[2] if command[0] == "sh" else shlex.join(command)
            words = check_docs.words_of(text)
            if words:
                self.check_command(words[1:])
                commands += 1
        self.assertEqual(commands, 2)

    def test_kubernetes_probes_reach_the_node(self):
        """The kubelet asks at the pod's address, not at its loopback interface."""
        parts = documents(f"{DOCKER}/kubernetes/nodes.yaml")
        (config,) = values(parts, "echofs.yml")
        host, port = yaml.safe_load(config)["http"]["listen"].rsplit(":", 1)
        self.assertEqual(host, "0.0.0.0")
        self.assertIn({"name": "http", "containerPort": int(port)}, [entry for found in values(parts, "ports") for entry in found])
        self.assertEqual(list(values(parts, "httpGet")), [{"path": "/health/ready", "port": "http"}, {"path": "/health", "port": "http"}])

    def test_kubernetes_mounts_reach_the_application(self):
        sets = {part["metadata"]["name"]: part for part in documents(f"{DOCKER}/kubernetes/nodes.yaml")
                if part["kind"] == "StatefulSet"}
        pod = sets["echofs"]["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]} | {"data"}
        propagation = {}
        for container in pod["initContainers"] + pod["containers"]:
            for mount in container["volumeMounts"]:
                self.assertIn(mount["name"], volumes)
                if mount["name"] == "mount":
                    propagation[container["name"]] = mount.get("mountPropagation")
        self.assertEqual(propagation, {"mount-directory": None, "echofs": "Bidirectional",
                                       "application": "HostToContainer"})

    @unittest.skipUnless(tomllib, "this Python has no tomllib")
    def test_fly(self):
        fly = tomllib.loads(read(f"{DOCKER}/fly/fly.toml"))
        config = yaml.safe_load(read(f"{DOCKER}/fly/echofs.yml"))
        self.assertEqual(fly["mounts"]["destination"], config["data"]["dir"])
        self.assertIn("LEASE_SERVER", fly["env"])

    def test_units_make_no_mount_namespace_for_a_node(self):
        unit = read(f"{DOCKER}/systemd/echofs.service")
        settings = re.findall(r"^(\w+)=", unit, re.MULTILINE)
        self.assertIn("WatchdogSec", settings)
        for setting in settings:
            self.assertNotRegex(setting, r"^(Private|Protect|ReadOnly|ReadWrite|Inaccessible|Temporary|Bind|Mount|"
                                         r"DynamicUser|RootDirectory|RootImage|NoExec|Exec(Paths))")

    def test_units_run_commands_that_there_are(self):
        for name in ("echofs", "echofs-lease-server"):
            unit = read(f"{DOCKER}/systemd/{name}.service")
            (command,) = re.findall(r"^ExecStart=/usr/bin/echofs (.*)$", unit, re.MULTILINE)
            self.check_command(command.split())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_accepts_the_units(self):
        with tempfile.TemporaryDirectory() as directory:
            for name in ("echofs.service", "echofs-lease-server.service"):
                text = read(f"{DOCKER}/systemd/{name}").replace("/usr/bin/echofs", ECHOFS)
                # A manual page that is not installed is a complaint, too.
                text = re.sub(r"^Documentation=.*$", "", text, flags=re.MULTILINE)
                path = os.path.join(directory, name)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                done = subprocess.run(["systemd-analyze", "verify", path], text=True, capture_output=True,
                                      timeout=60, check=False)
                said = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
                self.assertEqual((done.returncode, said), (0, []), done.stderr)


if __name__ == "__main__":
    unittest.main()
