"""The walk through the service's guide, typed as it stands in the documentation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase

PAGE = Path(django_lakebase.__file__).parent.parent / "docs/howto/guide.md"
NEEDED = ("bash", "curl", "jq", "psql")


@pytest.mark.skipif(
    not all(shutil.which(name) for name in NEEDED),
    reason="bash, curl, jq or psql is not installed",
)
def test_the_guide_can_be_followed():
    """Every command succeeds, and the logins are those that the text promises."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    start, *steps = [block.removeprefix("$ ").replace("\n$ ", "\n") for block in blocks]
    # The operation is asked for until it is done, as the text says.
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
    # The text's reader has activated an environment; the tests' may not be.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    done = subprocess.run(
        [*start.split(), "-c", script],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "owner-" in done.stdout
    assert "ENDPOINT_TYPE_READ_WRITE" in done.stdout
    assert "/branches/try/operations/" in done.stdout
    assert "secret-revoked" in done.stdout
