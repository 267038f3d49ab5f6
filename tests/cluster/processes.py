"""Programs, ports, mounts and waiting, for the cluster tests (harness.py)."""

import contextlib
import os
import socket
import subprocess
import time
import unittest

# Limits after which a test gives up. They cost nothing when all is well, and are meant for a machine that has been
# given ten times the work that it can do.
WAIT_SECONDS = 180
COMMAND_SECONDS = 180
NOBODY = 65534  # user and group
LONG = os.environ.get("ECHOFS_LONG") == "1"  # ./dev long

needs_root = unittest.skipUnless(os.geteuid() == 0, "only root can become another user")


def scaled(short, long):
    """How much of something a test does: `short` in ./dev test, `long` in ./dev long."""
    return long if LONG else short


def as_nobody():
    """What to put before a command that an ordinary user is to run."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def wait_for(condition, what, seconds=WAIT_SECONDS):
    """Until condition() is true; returns its value. `what` may be a function that explains."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            text = what() if callable(what) else what
            raise AssertionError(f"gave up after {seconds} s waiting for {text}")
        time.sleep(0.005)


def run(command, seconds=COMMAND_SECONDS, check=True, **options):
    """Runs a program to its end. With `check`, fails the test when it fails."""
    done = subprocess.run(command, timeout=seconds, check=False, text=True,
                          stdin=options.pop("stdin", subprocess.DEVNULL) if "input" not in options
                          else None,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


# Ports that were given out once are not given out again in this process.
_used_ports = set()


def free_port():
    """Below the range from which the kernel takes ports for connections."""
    first = 10000 + (os.getpid() * 37) % 15000
    for port in range(first, 32000):
        if port in _used_ports:
            continue
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _used_ports.add(port)
        return port
    raise AssertionError("no free port")


def is_mounted(directory):
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        return any(line.split()[4] == directory for line in table)


def children_of(parent):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                text = stat.read()
        except OSError:
            continue
        if int(text[text.rindex(")") + 2:].split()[1]) == parent:
            found.append(int(entry))
    return found


def process_name(pid):
    """Empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
            return comm.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def thread_states(pid):
    """States of the process's threads, such as {"S", "D"}; empty when it is gone."""
    states = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/stat",
                                                    encoding="utf-8", errors="replace") as stat:
                text = stat.read()
                states.add(text[text.rindex(")") + 2])
    return states
