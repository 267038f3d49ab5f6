#!/usr/bin/env python3
"""Checks that every `echofs ...` and `./dev ...` command in README.md and docs/*.md exists.

usage: check_docs.py ECHOFS    (the built binary; run from the root of the repository)

A command is a line of a fenced block, or an inline code span, whose first word is echofs or ./dev, perhaps after
"$", "sudo" or a path. Its subcommand must be known to the program, and each --option must be in that
subcommand's --help.
"""

import glob
import re
import shlex
import subprocess
import sys

FENCE = re.compile(r"^\s*(```|~~~)")
INLINE = re.compile(r"`([^`\n]+)`")
END_OF_COMMAND = {"--", "|", "||", "&&", "&", ";", ">", "2>", "<", "#"}


def commands(path):
    """Yields (line number, text) of everything in a Markdown file that may be a command."""
    in_fence = False
    pending, pending_line = "", 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if FENCE.match(line):
                in_fence = not in_fence
            elif in_fence:
                pending_line = pending_line or number
                pending += line.rstrip("\n")
                if pending.endswith("\\"):
                    pending = pending[:-1] + " "
                    continue
                yield pending_line, pending
                pending, pending_line = "", 0
            else:
                for span in INLINE.findall(line):
                    yield number, span


def words_of(text):
    """Words of the first command in the text, from echofs or ./dev on; nothing when it is none."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        words = text.split()
    while words and (words[0] in ("$", "#", "sudo", "exec") or re.match(r"^[A-Z_]+=", words[0])):
        words = words[1:]
    if not words or not (words[0] == "./dev" or words[0].split("/")[-1] == "echofs"):
        return []
    for i, word in enumerate(words):
        if word in END_OF_COMMAND:
            return words[:i]
    return words


class Program:
    def __init__(self, binary):
        self.binary = binary
        self.helps = {}

    def help(self, subcommands):
        """Help text, or None when there is no such subcommand."""
        key = tuple(subcommands)
        if key not in self.helps:
            run = subprocess.run([self.binary, *subcommands, "--help"], capture_output=True, text=True)
            self.helps[key] = run.stdout if run.returncode == 0 else None
        return self.helps[key]

    def subcommands(self, subcommands):
        text = self.help(subcommands) or ""
        _, _, rest = text.partition("Subcommands:\n")
        return re.findall(r"^  (\w[\w-]*)", rest.split("\n\n")[0], re.MULTILINE)

    def check(self, words):
        """What is wrong with the words after "echofs"; empty when nothing is."""
        path = []
        while words and self.subcommands(path):
            if words[0] not in self.subcommands(path):
                if words[0].startswith("-"):
                    break
                return f"there is no 'echofs {' '.join([*path, words[0]])}'"
            path.append(words[0])
            words = words[1:]
        text = self.help(path)
        for word in words:
            option = re.sub(r"[=\])].*$", "", word.lstrip("[("))
            if option.startswith("-") and not re.search(re.escape(option) + r"[\s,]", text):
                return f"'echofs {' '.join(path)}' has no option {option}"
        return ""


def main():
    program = Program(sys.argv[1])
    usage = subprocess.run(["./dev", "help"], capture_output=True, text=True, check=True).stdout
    dev_commands = re.findall(r"^  ([\w-]+)", usage, re.MULTILINE)
    checked, wrong = 0, 0
    for path in sorted(["README.md", *glob.glob("docs/*.md")]):
        try:
            found = list(commands(path))
        except FileNotFoundError:
            continue
        for line, text in found:
            words = words_of(text)
            if len(words) < 2:
                continue
            checked += 1
            if words[0] == "./dev":
                problem = "" if words[1] in dev_commands else f"there is no './dev {words[1]}'"
            else:
                problem = program.check(words[1:])
            if problem:
                wrong += 1
                print(f"{path}:{line}: {problem}: {text}", file=sys.stderr)
    print(f"{checked} commands checked, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
