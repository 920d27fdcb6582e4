"""Django's source distribution, and an environment to run its tests in."""

import platform
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CACHE = CHECKOUT / ".django-suite"
# Requirements of tests that need servers which are not available here.
EXCLUDED_REQUIREMENTS = ("pylibmc", "pywatchman")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An unpacked source distribution, and the *python* of its environment."""

    version: str
    tests: Path
    python: Path


def prepare(release: str) -> Source:
    """
    Return Django *release* (5.2 or 5.2.19) with an environment for its tests.

    The first call downloads the release.
    """
    folder = _find_or_download(release)
    version = folder.name.partition("-")[2]
    python = _prepare_environment(folder, version)
    return Source(version=version, tests=folder / "tests", python=python)


def _find_or_download(release: str) -> Path:
    """Return the folder of *release*, in its newest patch version that is cached."""
    folders = _find_folders(release)
    if not folders:
        is_exact = release.count(".") > 1
        requirement = f"django=={release}" if is_exact else f"django~={release}.0"
        print(f"downloading {requirement}", flush=True)
        # pip also builds the metadata of the download, which takes half a minute.
        _pip(
            *(sys.executable, "download", "--no-binary", "django", "--no-deps"),
            *("--dest", str(CACHE), requirement),
        )
        for archive in CACHE.glob(f"django-{release}*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(CACHE, filter="data")
        folders = _find_folders(release)
    return folders[-1]


def _find_folders(release: str) -> list[Path]:
    folders = [
        folder
        for folder in CACHE.glob(f"django-{release}*")
        if folder.is_dir() and f"{folder.name}.".startswith(f"django-{release}.")
    ]
    return sorted(folders, key=lambda f: [int(n) for n in f.name[7:].split(".")])


def _prepare_environment(folder: Path, version: str) -> Path:
    """Return the Python of an environment with this Django and this checkout."""
    environment = CHECKOUT / f".venv-suite-{version}"
    python, stamp = environment / "bin" / "python", environment / "complete"
    project = CHECKOUT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime > project.stat().st_mtime:
        return python
    print(f"creating {environment.name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    files = folder / "tests" / "requirements"
    requirements = [
        line
        for name in ("py3.txt", "postgres.txt")
        for line in (files / name).read_text().splitlines()
        if line and not line.startswith(("#", *EXCLUDED_REQUIREMENTS))
    ]
    _pip(
        *(str(python), "install", "--prefer-binary"),
        *("--editable", str(CHECKOUT), "--editable", str(folder), *requirements),
    )
    stamp.touch()
    return python


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", arguments[0], "--quiet"]
    completed = subprocess.run(
        [*command, "--disable-pip-version-check", *arguments[1:]], check=False
    )
    if completed.returncode:
        raise SystemExit(
            f"pip {arguments[0]} failed; its message is above. This is Python "
            f"{platform.python_version()}, and Django 6 needs 3.12 or newer."
        )
