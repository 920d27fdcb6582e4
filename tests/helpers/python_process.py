"""New Python processes that run a piece of code."""

import os
import subprocess
import sys


def run_python(code: str, **variables: str) -> str:
    """Return what *code* prints in a new process with these environment variables."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **variables},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
