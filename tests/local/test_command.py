"""The command ``lakebase-local``: options, signals, exit statuses and clean-up."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psycopg
import pytest

from django_lakebase.local.client import LocalLakebase
from tests.helpers.plain_psycopg import open_session
from tests.local.processes import get_children, is_alive, wait_until_ended

COMMAND = [sys.executable, "-m", "django_lakebase.local"]


def run(*arguments, env=None):
    """Run the command until it ends; return the finished process."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=env
    )


@contextlib.contextmanager
def start_process(command, **options):
    """Start *command*; yield its process and its standard output."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, **options
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout


def test_run_sets_all_variables_and_removes_those_of_another_workspace(
    temp_dir, monkeypatch
):
    monkeypatch.setenv("DATABRICKS_TOKEN", "another's")
    monkeypatch.setenv("PGPASSWORD", "another's")
    print_environment = "import os, json; print(json.dumps(dict(os.environ)))"

    result = run("run", "--libpq", "--", sys.executable, "-c", print_environment)

    env = json.loads(result.stdout)
    assert result.returncode == 0
    assert {
        "DATABRICKS_HOST",
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
    } < set(env)
    assert {"ENDPOINT_NAME", "PGHOST", "PGDATABASE", "PGUSER", "PGPORT"} < set(env)
    assert {"PGSSLMODE", "PGSSLROOTCERT", "PGHOSTADDR", "LAKEBASE_LOCAL_URL"} < set(env)
    assert not {"DATABRICKS_TOKEN", "PGPASSWORD"} & set(env)
    assert list(temp_dir.iterdir()) == []


def test_variables_and_files_of_libpq_do_not_affect_the_admin_connection(
    temp_dir, monkeypatch
):
    """Each of these would make the connection fail, or libpq print a warning."""
    monkeypatch.setenv("PGSERVICE", "missing")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGOPTIONS", "-c no_such_setting=1")
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    monkeypatch.setenv("PGTZ", "no such time zone")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        monkeypatch.setenv("HOME", home)
        passwords = Path(home, ".pgpass")
        passwords.touch()
        passwords.chmod(0o644)
        result = run("run", "--", "true")

    assert result.returncode == 0
    assert "pgpass" not in result.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143)],
    ids=["exit", "signal"],
)
def test_run_exits_with_the_status_of_its_command(temp_dir, code, status):
    """As in a shell, a command killed by signal N gives the status 128 + N."""
    assert run("run", "--", sys.executable, "-c", code).returncode == status


def test_run_exits_127_if_the_command_is_not_found(temp_dir):
    result = run("run", "--", "no-such-command")

    assert result.returncode == 127
    assert "no-such-command cannot be run" in result.stderr


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1],
)
def test_run_forwards_signals_to_its_command_and_cleans_up(temp_dir, number):
    code = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    with start_process(
        [*COMMAND, "run", "--", sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as (process, output):
        assert output.readline() == "ready\n"
        children = get_children(process.pid)
        process.send_signal(number)

        assert process.wait(30) == 5
    assert not any(is_alive(pid) for pid in children)
    assert list(temp_dir.iterdir()) == []


def test_children_of_a_killed_emulator_end_and_the_next_start_removes_its_files(
    temp_dir,
):
    with start_process([*COMMAND, "start", "--format", "json"]) as (process, output):
        env = json.loads(output.readline())["env"]
        children = get_children(process.pid)
        process.kill()
        process.wait()
    remaining = list(temp_dir.iterdir())

    for pid in children:
        wait_until_ended(pid)
    assert len(children) >= 1
    assert [str(Path(env["PGSSLROOTCERT"]).parent)] == [str(p) for p in remaining]
    assert run("run", "--", "true").returncode == 0
    assert list(temp_dir.iterdir()) == []


def test_emulator_ends_and_cleans_up_when_its_parent_is_killed(temp_dir):
    program = (
        "import sys, time\n"
        "from django_lakebase.local.client import LocalLakebase\n"
        "with LocalLakebase.start():\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with start_process([sys.executable, "-c", program], stdin=subprocess.PIPE) as (
        process,
        output,
    ):
        output.readline()
        (emulator_pid,) = get_children(process.pid)
        process.kill()
        process.wait()

    wait_until_ended(emulator_pid)

    assert list(temp_dir.iterdir()) == []


def test_run_adds_the_loopback_address_to_no_proxy(temp_dir, monkeypatch):
    """Otherwise HTTP_PROXY would apply to requests to the emulator."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "intranet.test")

    result = run("run", "--", "sh", "-c", "echo $no_proxy $NO_PROXY")

    assert result.stdout.split() == ["intranet.test,127.0.0.1"] * 2


@pytest.mark.parametrize("style", ["shell", "dotenv"])
def test_start_prints_the_variables_in_the_chosen_format(temp_dir, style):
    with start_process([*COMMAND, "start", "--format", style]) as (process, output):
        lines = [output.readline() for _ in range(12)]
        process.terminate()
        assert process.wait(30) == 0

    prefix = "export " if style == "shell" else ""
    assert any(line.startswith(f"{prefix}ENDPOINT_NAME=projects/") for line in lines)


def test_data_option_keeps_tables_and_secrets_and_locks_the_directory(temp_dir):
    kept = temp_dir / "kept"
    secrets = []
    for statement in ("CREATE TABLE kept (n int)", "DROP TABLE kept"):
        with LocalLakebase.start("--data", str(kept)) as emulator:
            facts = emulator.facts
            secrets.append(emulator.env["DATABRICKS_CLIENT_SECRET"])
            native_login = {
                "user": facts["native_user"],
                "password": facts["native_password"],
            }
            with open_session(emulator, **native_login) as session:
                session.execute(statement)
            second = run("run", "--data", str(kept), "--", "true")
            assert "in use by another" in second.stderr

    assert secrets[0] == secrets[1]


def test_data_directory_whose_path_is_too_long_for_a_socket_is_rejected(temp_dir):
    result = run("run", "--data", str(temp_dir / ("long" * 25)), "--", "true")

    assert result.returncode == 1
    assert "Use a shorter TMPDIR or --data" in result.stderr


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root runs the server as another account"
)
def test_data_directory_that_the_server_account_cannot_reach_is_rejected(temp_dir):
    (temp_dir / "closed").mkdir(mode=0o700)

    result = run("run", "--data", str(temp_dir / "closed" / "data"), "--", "true")

    assert result.returncode == 1
    assert f"cannot access {temp_dir / 'closed'}" in result.stderr


def test_data_directory_with_other_files_is_rejected_and_unchanged(tmp_path):
    (tmp_path / "precious").write_text("data")

    result = run("run", "--data", str(tmp_path), "--", "true")

    assert result.returncode == 1
    assert "was not made by lakebase-local" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("option", ["--pg-port", "--api-port"])
def test_port_that_is_in_use_is_rejected_and_no_files_remain(temp_dir, option):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        result = run("run", option, str(listener.getsockname()[1]), "--", "true")

    assert result.returncode == 1
    assert f"Give {option} another one" in result.stderr
    assert list(temp_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "run needs a command"),
        (["run", "--fault", "no-such", "--", "true"], "There is no fault"),
        (["fault", "list"], "LAKEBASE_LOCAL_URL is not set"),
        (["fault", "set"], "LAKEBASE_LOCAL_URL is not set"),
    ],
)
def test_invalid_arguments_exit_1_with_an_explanation(arguments, message, monkeypatch):
    monkeypatch.delenv("LAKEBASE_LOCAL_URL", raising=False)

    result = run(*arguments)

    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--token-ttl", "0"),
        ("--token-ttl", "nan"),
        ("--suspend-after", "-1"),
        ("--api-port", "99999"),
        ("--pg-port", "-5"),
    ],
)
def test_invalid_number_is_a_usage_error(option, value):
    result = run("run", f"{option}={value}", "--", "true")

    assert result.returncode == 2
    assert f'argument {option}: "{value}" is not a' in result.stderr


def test_invalid_emulator_url_exits_1_without_a_traceback(monkeypatch):
    monkeypatch.setenv("LAKEBASE_LOCAL_URL", "nonsense")

    result = run("fault", "list")

    assert result.returncode == 1
    assert "No local Lakebase answers at nonsense" in result.stderr
    assert "Traceback" not in result.stderr


def test_fault_command_sets_lists_and_clears_faults_of_the_running_emulator(local):
    env = {**os.environ, "LAKEBASE_LOCAL_URL": local.url}

    assert run("fault", "set", "latency", "ms=5", env=env).stdout == "latency ms=5.0\n"
    assert run("fault", "list", env=env).stdout == "latency ms=5.0\n"
    assert run("fault", "clear", env=env).stdout == ""
    assert "needs a NAME" in run("fault", "set", env=env).stderr
    assert "There is no fault" in run("fault", "clear", "x", env=env).stderr


def test_fault_option_activates_a_fault_at_start(temp_dir):
    with LocalLakebase.start("--fault", "latency:ms=3") as emulator:
        assert emulator.facts["token_ttl"] == 3600.0
        env = {**os.environ, "LAKEBASE_LOCAL_URL": emulator.url}
        result = run("fault", "list", env=env)

    assert result.stdout == "latency ms=3.0\n"


RESET_CONNECTION = """
import os, socket, struct, urllib.parse, urllib.request
url = os.environ["DATABRICKS_HOST"]
with socket.create_connection(urllib.parse.urlsplit(url).netloc.split(":")) as client:
    client.sendall(b"POST /oidc/v1/token HTTP/1.1\\r\\nHost: x\\r\\n"
                   b"Content-Type: application/x-www-form-urlencoded\\r\\n"
                   b"Content-Length: 9\\r\\nExpect: 100-continue\\r\\n\\r\\n")
    # After "100 Continue" the server waits for the body.
    assert client.recv(99).startswith(b"HTTP/1.1 100")
    reset = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
urllib.request.urlopen(url + "/.well-known/databricks-config").close()
"""


def test_client_that_resets_its_connection_during_a_request_logs_no_traceback(temp_dir):
    """The kernel resets the connections of a client that is killed."""
    result = run("run", "--", sys.executable, "-c", RESET_CONNECTION)

    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_on_path_is_skipped(temp_dir, monkeypatch):
    """After sudo or su, PATH may name folders of the previous user."""
    locked = temp_dir / "locked"
    locked.mkdir(mode=0)
    monkeypatch.setenv("PATH", f"{locked / 'bin'}{os.pathsep}{os.environ['PATH']}")

    assert run("run", "--", "true").returncode == 0


def test_embedded_postgresql_with_the_grants_of_the_guide_rejects_create_table(
    temp_dir,
):
    with LocalLakebase.start("--postgres", "embedded", "--grants", "guide") as emulator:
        facts = emulator.facts
        with open_session(emulator) as session:
            version = session.info.server_version // 10000
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("CREATE TABLE x ()")

    assert version == facts["postgres_version"] >= 16


def test_help_lists_the_faults():
    result = run("--help")

    assert result.returncode == 0
    assert "reject-logins" in result.stdout


def test_api_tls_option_serves_the_api_with_a_private_certificate_authority():
    """The requests that control faults stay on plain HTTP."""
    with LocalLakebase.start("--api-tls") as emulator:
        url = emulator.env["DATABRICKS_HOST"]
        path = f"{url}/oidc/.well-known/oauth-authorization-server"
        ca_file = emulator.env["REQUESTS_CA_BUNDLE"]
        context = ssl.create_default_context(cafile=ca_file)
        with urllib.request.urlopen(path, context=context) as response:
            metadata = json.load(response)
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(path)
        with emulator.fault("latency"):
            pass

    assert url.startswith("https://127.0.0.1:")
    assert metadata["token_endpoint"] == f"{url}/oidc/v1/token"
    assert emulator.url.startswith("http://127.0.0.1:")


def test_emulator_runs_on_uvloop_if_it_is_installed(local):
    pytest.importorskip("uvloop")

    maps = Path(f"/proc/{local.facts['pid']}/maps")

    assert "uvloop" in maps.read_text()


def test_emulator_runs_on_plain_asyncio_if_uvloop_cannot_be_imported(
    temp_dir, tmp_path, monkeypatch
):
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with LocalLakebase.start() as local, open_session(local) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
