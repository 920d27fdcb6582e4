"""The commands of ``docs/howto/roles.md``, run in the order of the page."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase

PAGE = Path(django_lakebase.__file__).parent.parent / "docs/howto/roles.md"
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
MARK = "--- end of the command, status "
SETTINGS = """
DATABASES = {"default": {"ENGINE": "django_lakebase"}}
INSTALLED_APPS += ["django_lakebase"]
"""
# The page's names of the identities.
APP = "80c74a21-d64b-4fca-96b9-619107795b1e"
NAMES = {"owner": "owner@example.com", "developer": "developer@example.com", "app": APP}
# A command that shows one of these fails.
FAILED = re.compile(r"^  fail |CommandError|^Not done", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Return each command with the output that the page shows, which may be empty."""
    found = []
    for language, block in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            found.append((f"cat >> shop/settings.py <<'END'\n{block}END", ""))
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def plain(text: str) -> str:
    """Replace what differs between runs and versions of PostgreSQL."""
    text = re.sub(r"\d+\.\d\d s ", "0.00 s ", text)
    text = re.sub(r"\bid=\d+", "id=123456789", text)
    return text.replace(" WITH INHERIT TRUE, SET TRUE", "").strip()


def pattern(shown: str) -> str:
    """Return a regular expression for *shown*, in which ``...`` is any text."""
    lines = re.escape(plain(shown)).replace("\\\n", "\n")
    lines = re.sub(r"(?m)^\\\.\\\.\\\.\n", "(?:.*\n)*?", lines)
    lines = re.sub(r"(?m)\n\\\.\\\.\\\.$", "(?:\n.*)*", lines)
    # The dots between a migration and its result are a part of the output.
    return re.sub(r"(?<=[ ;])\\\.\\\.\\\.$", ".*", lines, flags=re.MULTILINE)


@pytest.mark.skipif(
    not all(shutil.which(name) for name in ("bash", "psql")),
    reason="bash or psql is not installed",
)
def test_every_command_of_the_page_prints_what_the_page_shows(tmp_path):
    # The page assumes an activated environment; pytest may run without one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    startproject = ["django-admin", "startproject", "shop", str(tmp_path)]
    subprocess.run(startproject, env=env, check=True)
    with (tmp_path / "shop/settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (start, _), *steps = commands()
    as_identity = [f"lakebase-local as {name} -- printenv PGUSER" for name in NAMES]
    script = "\n".join(
        f"{command}\necho '{MARK}'$?"
        for command in (*as_identity, *(command for command, _ in steps))
    )
    words = shlex.split(start)
    # Roles have the options of the service's versions of PostgreSQL.
    words[2:2] = ["--postgres", "embedded"]

    result = subprocess.run(
        [*words, "-c", f"exec 2>&1\n{script}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    printed = re.findall(rf"(.*?){MARK}(\d+)\n", result.stdout, re.DOTALL)
    assert len(printed) == len(NAMES) + len(steps), result.stdout + result.stderr
    outputs = [output for output, _ in printed]
    for name, identity in zip(NAMES.values(), outputs[: len(NAMES)], strict=True):
        outputs = [output.replace(identity.strip(), name) for output in outputs]
    for (command, shown), (_, status), output in zip(
        steps, printed[len(NAMES) :], outputs[len(NAMES) :], strict=True
    ):
        assert (status == "0") != bool(FAILED.search(shown)), (command, output)
        if shown:
            assert re.fullmatch(pattern(shown), plain(output)), (command, output)
