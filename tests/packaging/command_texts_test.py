"""What `echofs man` and `echofs completion` print, as the programs that read it see it."""

import os
import shutil
import subprocess
import unittest

ECHOFS = os.environ["ECHOFS"]


def output(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, timeout=60, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class ManualPageTest(unittest.TestCase):
    def setUp(self):
        self.page = output(ECHOFS, "man")

    def test_it_has_every_command_and_option_of_the_help(self):
        for words in ((), ("mount",), ("orphans", "export"), ("lease-server",)):
            for word in output(ECHOFS, *words, "--help").split():
                if word.startswith("--") and word.strip("-") and word != "--help":
                    self.assertIn(word.replace("-", "\\-"), self.page)
        for command in ("mount", "run", "orphans discard", "config check", "completion fish"):
            self.assertIn(f'.SS "{command}"', self.page.replace("\\-", "-"))

    def warnings(self, command):
        done = subprocess.run(command, input=self.page, text=True, capture_output=True, timeout=60, check=False)
        return done.returncode, done.stderr

    @unittest.skipUnless(shutil.which("groff"), "groff is not installed")
    def test_groff_formats_it_without_warnings(self):
        command = ["groff", "-man", "-ww", "-Tutf8", "-Z"]
        self.assertEqual(self.warnings(command), (0, ""))

    @unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
    def test_mandoc_has_nothing_to_say_but_of_the_missing_date(self):
        _, said = self.warnings(["mandoc", "-T", "lint", "-W", "warning"])
        self.assertEqual([line for line in said.splitlines() if "missing date" not in line], [])

    @unittest.skipUnless(shutil.which("man"), "man is not installed")
    def test_man_shows_it(self):
        text = output("man", "--warnings", "-l", "-", input=self.page, env={**os.environ, "MANWIDTH": "100"})
        self.assertIn("echofs - a file system for SQLite that replicates", text)
        self.assertIn("--fuse-dir DIR", text)


class CompletionTest(unittest.TestCase):
    def test_the_name_of_the_shell_is_asked_for(self):
        done = subprocess.run([ECHOFS, "completion"], capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 2)

    def bash(self, *words):
        """What bash offers for the last word."""
        script = ('source <("$0" completion bash) && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) && '
                  '_echofs; printf "%s\\n" "${COMPREPLY[@]}"')
        return output("bash", "-c", script, ECHOFS, "echofs", *words).split()

    def test_bash_completes_commands(self):
        self.assertEqual(self.bash("st"), ["status"])
        self.assertLessEqual({"mount", "status", "orphans", "completion"}, set(self.bash("")))
        self.assertNotIn("man", self.bash(""))
        self.assertEqual(self.bash("orphans", "ex"), ["export"])
        self.assertEqual(self.bash("orphans", "list", "ex"), [])

    def test_bash_completes_options_of_the_command(self):
        self.assertEqual(self.bash("mount", "--lease"), ["--lease-primary"])
        self.assertEqual(self.bash("status", "--lease"), [])
        self.assertEqual(self.bash("orphans", "list", "--j"), ["--json"])
        self.assertIn("--json", self.bash("status", "--data-dir", "/x", "-"))

    def test_bash_completes_no_option_in_place_of_a_value(self):
        self.assertEqual(self.bash("mount", "--node-id", ""), [])
        self.assertEqual(self.bash("mount", "--config", ""), [])

    def test_bash_completes_programs_behind_two_dashes(self):
        self.assertIn("bash", self.bash("mount", "--config", "x", "--", "bas"))
        self.assertEqual(self.bash("mount", "--", "status", "--j"), [])

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_zsh_accepts_its_script(self):
        output("zsh", "-n", input=output(ECHOFS, "completion", "zsh"))

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_fish_completes(self):
        script = f"{ECHOFS} completion fish | source; complete -C "
        self.assertIn("status\t", output("fish", "-c", script + "'echofs st'"))
        self.assertIn("--lease-primary\t", output("fish", "-c", script + "'echofs mount --lease'"))
        self.assertEqual("", output("fish", "-c", script + "'echofs orphans list ex'"))


if __name__ == "__main__":
    unittest.main()
