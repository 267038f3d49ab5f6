"""Certificates and tokens for the tests, made with the openssl command as docs/operations.md says."""

import os
import secrets
import shutil

from processes import run


class Authority:
    """A certificate authority, and what it issues."""

    def __init__(self, directory, name):
        self.directory = os.path.join(directory, name)
        self.name = name
        os.makedirs(self.directory)
        self.ca = self.path("ca.crt")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", self.path("ca.key"), "-out", self.ca, "-days", "30", "-subj", f"/CN={name}")

    def path(self, name):
        return os.path.join(self.directory, name)

    @staticmethod
    def openssl(*arguments):
        run(["openssl", *arguments])

    def issue(self, name, days=30, names="IP:127.0.0.1"):
        """A certificate for both sides of a connection: the files as grpc.tls has them. `days` below 0: expired."""
        with open(self.path(name + ".ext"), "w", encoding="ascii") as file:
            file.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", self.path(name + ".key"), "-out", self.path(name + ".csr"), "-subj", f"/CN={name}")
        self.openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.ca, "-CAkey",
                     self.path("ca.key"), "-CAcreateserial", "-days", str(days), "-extfile",
                     self.path(name + ".ext"), "-out", self.path(name + ".crt"))
        return {"cert": self.path(name + ".crt"), "key": self.path(name + ".key"), "ca": self.ca}


def replace_files(files, others):
    """Puts the content of `others` in the place of `files`, each in one step."""
    for kind in ("ca", "cert", "key"):
        new = files[kind] + ".new"
        shutil.copy2(others[kind], new)
        os.rename(new, files[kind])


def token_file(directory, name="token"):
    """A new token in a file that its owner alone can read."""
    path = os.path.join(directory, name)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32) + "\n")
    return path
