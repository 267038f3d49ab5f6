"""Cases that differ in the mount by design: expected.txt."""

import fnmatch
import os

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.txt")


class Expectations:
    """Lines `FILE CASE reason`, where FILE and CASE may be patterns."""

    def __init__(self):
        self.entries = []
        self.used = set()
        with open(PATH, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    name, case, reason = line.split(None, 2)
                    self.entries.append((name, case, reason.strip()))

    def covers(self, name, case):
        for entry in self.entries:
            if fnmatch.fnmatchcase(name, entry[0]) and fnmatch.fnmatchcase(case, entry[1]):
                self.used.add(entry)
                return True
        return False

    def unused(self, names):
        """Lines about these test files that no case needed: they can go."""
        return [f"{entry[0]} {entry[1]}" for entry in self.entries
                if entry not in self.used
                and any(fnmatch.fnmatchcase(name, entry[0]) for name in names)]
