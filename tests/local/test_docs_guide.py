"""The commands of ``docs/howto/guide.md``, run in the order of the page."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase

PAGE = Path(django_lakebase.__file__).parent.parent / "docs/howto/guide.md"
REQUIRED_PROGRAMS = ("bash", "curl", "jq", "psql")


@pytest.mark.skipif(
    not all(shutil.which(name) for name in REQUIRED_PROGRAMS),
    reason="bash, curl, jq or psql is not installed",
)
def test_every_command_of_the_guide_succeeds():
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    start, *steps = [block.removeprefix("$ ").replace("\n$ ", "\n") for block in blocks]
    # The page tells its reader to poll the operation until it is done. After that a
    # new branch still rejects logins for a short time.
    wait = (
        'until curl -sf -H "Authorization: Bearer $TOKEN" '
        "$API/postgres/$PROJECT/branches/try | grep -q READY; do :; done\n"
        'until PGUSER=$OWNER PGPASSWORD=$(curl -s -X POST -H "Authorization: Bearer '
        '$TOKEN" -d "{\\"endpoint\\": \\"$ENDPOINT_NAME\\"}" $API/postgres/credentials'
        ' | jq -r .token) PGHOST=$(curl -s -H "Authorization: Bearer $TOKEN" '
        "$API/postgres/$PROJECT/branches/try/endpoints | jq -r "
        ".endpoints[0].status.hosts.host) psql -c '' 2>/dev/null; do :; done\n"
    )
    steps[6:6] = [wait]
    script = "set -euo pipefail\n" + "\n".join(steps)
    # The page assumes an activated environment; pytest may run without one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    result = subprocess.run(
        [*start.split(), "-c", script],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "owner-" in result.stdout
    assert "ENDPOINT_TYPE_READ_WRITE" in result.stdout
    assert "/branches/try/operations/" in result.stdout
    assert "secret-revoked" in result.stdout
