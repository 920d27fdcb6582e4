"""The process that ends all processes of an app, without an emulator."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.local.processes import get_descendants, is_alive, wait_until_ended

SUPERVISOR = [sys.executable, "-m", "django_lakebase.local.as_app.supervisor"]
# Seconds: long enough that no passing test reaches it, or so short that SIGKILL follows
# SIGTERM.
NEVER, SOON, ENDS_WITHIN = "600", "0.05", 30.0
IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
EXIT_ON_SIGTERM = """
import signal, sys
def stop(*_):
    print("stopping", flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
"""
# Prints the process id, and then waits for a signal for as long as it takes.
WAIT = """
import os, time
print(os.getpid(), flush=True)
while True:
    time.sleep(600)
"""
# In a new session, SIGTERM to the process group does not reach the process.
DETACHED = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {IGNORE_SIGTERM + WAIT!r}],
                 start_new_session=True)
"""


@contextlib.contextmanager
def supervise(timeout, *command):
    """Start *command* under the supervisor; yield the supervisor's process."""
    with subprocess.Popen(
        [*SUPERVISOR, timeout, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            try:
                process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                for pid in (*get_descendants(process.pid), process.pid):
                    os.kill(pid, signal.SIGKILL)
                raise


def run_python(code):
    return sys.executable, "-c", code


def test_command_is_stopped_with_sigterm_when_the_emulator_ends():
    """The emulator's end of standard input is closed however it ends."""
    with supervise(NEVER, *run_python(EXIT_ON_SIGTERM + WAIT)) as process:
        process.stdout.readline()
        process.stdin.close()

        assert process.wait(ENDS_WITHIN) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_to_the_supervisor_stops_the_command(number):
    with supervise(NEVER, *run_python(EXIT_ON_SIGTERM + WAIT)) as process:
        process.stdout.readline()
        process.send_signal(number)

        assert process.wait(ENDS_WITHIN) == 5


def test_sigterm_reaches_a_server_that_a_shell_has_started_without_exec():
    script = '"$0" -c "$1"; exit 9'
    command = ["bash", "-c", script, sys.executable, EXIT_ON_SIGTERM + WAIT]
    with supervise(NEVER, *command) as process:
        pid = int(process.stdout.readline())
        process.stdin.close()

        # The shell ends first; the supervisor waits for the server.
        assert process.wait(ENDS_WITHIN) == 128 + signal.SIGTERM
        assert process.stdout.readline() == "stopping\n"
        assert not is_alive(pid)


def test_command_that_ignores_sigterm_is_killed_after_the_timeout():
    with supervise(SOON, *run_python(IGNORE_SIGTERM + WAIT)) as process:
        pid = int(process.stdout.readline())
        process.stdin.close()

        assert process.wait(ENDS_WITHIN) == 128 + signal.SIGKILL
        assert not is_alive(pid)


def test_process_outside_the_process_group_is_killed_after_the_timeout():
    code = DETACHED + EXIT_ON_SIGTERM + "time.sleep(600)"
    with supervise(SOON, *run_python(code)) as process:
        pid = int(process.stdout.readline())
        process.stdin.close()

        assert process.wait(ENDS_WITHIN) == 5
        assert not is_alive(pid)


def test_nothing_outlives_the_command():
    """As in a container, also a daemon ends with the command, and without a delay."""
    code = DETACHED + "sys.stdin.close(); sys.exit(7)"
    with supervise(NEVER, *run_python(code)) as process:
        assert process.wait(ENDS_WITHIN) == 7
        pid = process.stdout.readline()

    assert not pid or not is_alive(int(pid))


def test_command_dies_with_a_supervisor_that_is_killed():
    with supervise(NEVER, *run_python(IGNORE_SIGTERM + WAIT)) as process:
        pid = int(process.stdout.readline())
        process.kill()
        process.wait()

        try:
            wait_until_ended(pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_status_of_a_command_that_ends_at_once_is_not_lost():
    """A Popen that is deleted before the end collects it, and only warns of that."""
    stdin, emulator = os.pipe()
    result = subprocess.run(
        [sys.executable, "-W", "always", *SUPERVISOR[1:], NEVER, "false"],
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(stdin)
    os.close(emulator)

    assert (result.returncode, result.stderr) == (1, "")


def test_command_that_cannot_be_run_gives_127():
    result = subprocess.run(
        [*SUPERVISOR, NEVER, "no-such-command"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 127
    assert "no-such-command cannot be run: No such file" in result.stderr
