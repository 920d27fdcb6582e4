"""Django's source distribution, and an environment to run its tests in."""

import platform
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".django-suite"
# Their tests ask for servers that are not here.
LEFT_OUT = ("pylibmc", "pywatchman")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An unpacked source distribution and its environment's *python*."""

    version: str
    tests: Path
    python: Path


def prepare(release: str) -> Source:
    """Return Django *release* (5.2, or 5.2.19) ready to be tested; downloads once."""
    folder = _unpacked(release)
    version = folder.name.partition("-")[2]
    python = _environment(folder, version)
    return Source(version=version, tests=folder / "tests", python=python)


def _unpacked(release: str) -> Path:
    """Return the folder of *release*, the newest patch of it that there is."""
    found = _folders(release)
    if not found:
        is_exact = release.count(".") > 1
        wanted = f"django=={release}" if is_exact else f"django~={release}.0"
        print(f"downloading {wanted}", flush=True)
        # Its metadata is built on the way, which takes half a minute.
        _pip(
            *(sys.executable, "download", "--no-binary", "django", "--no-deps"),
            *("--dest", str(CACHE), wanted),
        )
        for archive in CACHE.glob(f"django-{release}*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(CACHE, filter="data")
        found = _folders(release)
    return found[-1]


def _folders(release: str) -> list[Path]:
    folders = [
        folder
        for folder in CACHE.glob(f"django-{release}*")
        if folder.is_dir() and f"{folder.name}.".startswith(f"django-{release}.")
    ]
    return sorted(folders, key=lambda f: [int(n) for n in f.name[7:].split(".")])


def _environment(folder: Path, version: str) -> Path:
    """Return the Python of an environment with this Django and this checkout."""
    home = CHECKOUT / f".venv-suite-{version}"
    python, stamp = home / "bin" / "python", home / "complete"
    project = CHECKOUT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime > project.stat().st_mtime:
        return python
    print(f"making {home.name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    needed = folder / "tests" / "requirements"
    lines = [
        line
        for name in ("py3.txt", "postgres.txt")
        for line in (needed / name).read_text().splitlines()
        if line and not line.startswith(("#", *LEFT_OUT))
    ]
    _pip(
        *(str(python), "install", "--prefer-binary"),
        *("--editable", str(CHECKOUT), "--editable", str(folder), *lines),
    )
    stamp.touch()
    return python


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", arguments[0], "--quiet"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", *arguments[1:]], check=False
    )
    if done.returncode:
        raise SystemExit(
            f"pip {arguments[0]} failed, with the message above. This is Python "
            f"{platform.python_version()}; Django 6 needs 3.12 or newer."
        )
