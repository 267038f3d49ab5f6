"""The kernel's cache of what is on the disk, and in mounts."""

import os

DROP = "/proc/sys/vm/drop_caches"
WHY_NOT = "dropping the kernel's caches needs root"


def can_be_dropped():
    return os.access(DROP, os.W_OK)


def drop():
    os.sync()
    with open(DROP, "w", encoding="ascii") as file:
        file.write("3\n")
