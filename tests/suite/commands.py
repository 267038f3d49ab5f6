"""Runs programs for the suite, as an ordinary user and with a watch for those that hang."""

import contextlib
import os
import signal
import subprocess
import time

import harness

OUTPUT_SIZE_MAX = 64 << 20  # bytes of a program's output that are kept
COMMAND_SECONDS = 120


class Finished:
    """What a program said, and how it ended."""

    def __init__(self, output, code, timed_out):
        self.output = output
        self.code = code
        self.timed_out = timed_out


def as_user():
    """What to put before a command that an ordinary user is to run."""
    return harness.as_nobody() if os.geteuid() == 0 else []


def run_as_user(command, directory, log_path, silent_seconds):
    """Runs it to its end, or until it is silent for so long. What it says is left in `log_path`."""
    with open(log_path, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen([*as_user(), *command], cwd=directory,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   start_new_session=True)
        # A machine may be slow: what hangs is what says nothing more.
        size, since = 0, time.monotonic()
        while process.poll() is None and time.monotonic() - since < silent_seconds:
            if os.path.getsize(log_path) != size:
                size, since = os.path.getsize(log_path), time.monotonic()
            time.sleep(0.02)
        code = process.poll()
        timed_out = code is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # helpers that it has left, too
        if timed_out:
            process.wait(timeout=harness.WAIT_SECONDS)
    with open(log_path, "rb") as log:
        log.seek(begin)
        return Finished(log.read(OUTPUT_SIZE_MAX).decode(errors="replace"), code, timed_out)


def shell(*command):
    """For everything in the mount: a mount that hangs must not hang this process."""
    return harness.run(list(command), seconds=COMMAND_SECONDS)


def make_directory(directory):
    """One that the user of as_user() may write to."""
    owner = ["-o", str(harness.NOBODY), "-g", str(harness.NOBODY)] if os.geteuid() == 0 else []
    shell("install", "-d", *owner, directory)


def remove(path):
    shell("rm", "-rf", path)
