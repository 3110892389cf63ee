"""Certificates of a private authority, made with the command `openssl`."""

import subprocess
from pathlib import Path

from tests.servers.process import ServerError

_DAYS = "2"
_NAMES = "IP:127.0.0.1,DNS:localhost"


class Authority:
    """A certificate authority in a folder of its own; `certificate` is its own certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self.certificate = self._folder / "authority.pem"
        self._key = self._folder / "authority.key"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", _DAYS, "-subj", f"/CN={name}"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, *, names: str = _NAMES, expired: bool = False) -> Path:
        """Issue a certificate; return a file with its key and its chain.

        Args:
            name: Common name, and name of the file.
            names: Subject alternative names, as openssl writes them.
            expired: Let the certificate end before now.
        """
        key, request, certificate = (self._folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n")
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *(
                "-CAcreateserial",
                "-extfile",
                str(extensions),
                "-out",
                str(certificate),
                "-days",
                "-1" if expired else _DAYS,
            ),
        )
        chain = self._folder / f"{name}.pem"
        chain.write_text(key.read_text() + certificate.read_text() + self.certificate.read_text())
        return chain

    @staticmethod
    def _openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"openssl {arguments[0]}: {done.stderr}")
