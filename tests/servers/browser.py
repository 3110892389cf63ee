"""Chromium of Debian for the browser tests, and axe-core, which finds barriers for people with disabilities."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from tests.servers.process import ServerError

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> Path:
    """Return the program of Chromium: from the path, or (as root) from Debian's package.

    Raises:
        ServerError: Chromium is not installed and cannot be installed.
    """
    found = _on_path()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        unattended = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # Chromium has no fonts of its own; the tests make pictures.
        install = ["install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
        for arguments in (["update", "-qq"], install):
            subprocess.run(["apt-get", *arguments], env=unattended, capture_output=True, check=False)
        found = _on_path()
    if found is None:
        raise ServerError("`chromium` is missing and the browser tests need it: install the package `chromium`")
    return found


def axe_script() -> str:
    """Return the source of axe-core from the wheel axe-playwright-python.

    Raises:
        ServerError: The wheel is not installed.
    """
    wheel = importlib.util.find_spec("axe_playwright_python")
    if wheel is None or wheel.origin is None:
        raise ServerError("axe-core for the tests is missing: install the extra `test` of outrider")
    return (Path(wheel.origin).parent / "axe.min.js").read_text()


def _on_path() -> Path | None:
    return next((Path(path) for name in _PROGRAMS if (path := shutil.which(name))), None)
