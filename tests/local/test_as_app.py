"""``lakebase-local run --as-app``: variables, privileges, sign-in, end."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from django_lakebase.local.client import VARIABLE_PREFIXES
from tests.helpers.app_servers import started
from tests.local.processes import get_descendants, is_alive, wait_until_ended

COMMAND = [sys.executable, "-m", "django_lakebase.local", "run"]
PLATFORM_VARIABLES = {
    "DATABRICKS_APP_NAME",
    "DATABRICKS_APP_URL",
    "DATABRICKS_APP_PORT",
    "DATABRICKS_HOST",
    "DATABRICKS_WORKSPACE_ID",
    "DATABRICKS_CLIENT_ID",
    "DATABRICKS_CLIENT_SECRET",
    "PGAPPNAME",
    "PGDATABASE",
    "PGHOST",
    "PGPORT",
    "PGSSLMODE",
    "PGUSER",
}
EMULATOR_VARIABLES = {"LAKEBASE_HOSTADDR", "LAKEBASE_LOCAL_URL", "REQUESTS_CA_BUNDLE"}
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def run(*arguments):
    """Run the command until it ends; return the finished process."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        # Without the variables that libraries have set outside of os.environ.
        env=dict(os.environ),
    )


def test_app_gets_exactly_the_variables_of_the_platform(temp_dir, monkeypatch):
    for name in ("ENDPOINT_NAME", "DATABRICKS_TOKEN", "PGPASSWORD", "PGSSLROOTCERT"):
        monkeypatch.setenv(name, "another's")

    result = run("--as-app", "--", sys.executable, "-c", PRINT_ENVIRONMENT)

    env = json.loads(result.stdout)
    added = {
        name
        for name, value in env.items()
        if os.environ.get(name) != value or name.startswith(VARIABLE_PREFIXES)
    }
    # Python itself sets LC_CTYPE in a C locale.
    assert added - {"LC_CTYPE"} == PLATFORM_VARIABLES | EMULATOR_VARIABLES
    assert not {"ENDPOINT_NAME", "DATABRICKS_TOKEN", "PGPASSWORD"} & set(env)
    assert "/endpoints/" not in result.stdout
    assert re.fullmatch(r"127\.0\.0\.1:\d+", env["DATABRICKS_HOST"])
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", env["DATABRICKS_APP_URL"])
    assert f"app at {env['DATABRICKS_APP_URL']}, " in result.stderr
    assert env["PGAPPNAME"] == env["DATABRICKS_APP_NAME"]
    assert env["PGUSER"] == env["DATABRICKS_CLIENT_ID"]
    assert env["PGSSLMODE"] == "require"
    assert list(temp_dir.iterdir()) == []


def test_endpoint_is_passed_in_the_variable_of_the_option(temp_dir):
    options = ["--endpoint-variable", "MY_DATABASE", "--app-port", "8123", "--libpq"]
    command = [sys.executable, "-c", PRINT_ENVIRONMENT, "0.0.0.0:$DATABRICKS_APP_PORT"]
    print_argument = "; import sys; print(sys.argv[1])"
    command[2] += print_argument

    result = run("--as-app", *options, "--", *command)

    environment, argument = result.stdout.splitlines()
    env = json.loads(environment)
    assert re.fullmatch(r"projects/.*/endpoints/primary", env["MY_DATABASE"])
    assert env["DATABRICKS_APP_PORT"] == "8123"
    assert env["PGHOSTADDR"] == "127.0.0.1"
    # The platform replaces this variable in a command that is a list.
    assert argument == "0.0.0.0:8123"


USE_WORKSPACE_AND_DATABASE = """
import os, psycopg
from databricks.sdk import WorkspaceClient
client = WorkspaceClient()
assert client.config.host == "https://" + os.environ["DATABRICKS_HOST"]
token = client.postgres.generate_database_credential(os.environ["ENDPOINT"]).token
with psycopg.connect(password=token, hostaddr=os.environ["LAKEBASE_HOSTADDR"],
                     autocommit=True) as session:
    session.execute("CREATE SCHEMA mine")
    session.execute("CREATE TABLE mine.things ()")
    for statement in ("CREATE TABLE public.things ()", "CREATE DATABASE other"):
        try:
            session.execute(statement)
        except psycopg.errors.InsufficientPrivilege as exc:
            print(exc.diag.message_primary)
"""


def test_app_can_use_the_sdk_and_create_a_schema_but_not_write_to_public(temp_dir):
    command = [sys.executable, "-c", USE_WORKSPACE_AND_DATABASE]

    result = run("--as-app", "--endpoint-variable", "ENDPOINT", "--", *command)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "permission denied for schema public",
        "permission denied to create database",
    ]


def test_grants_option_overrides_the_privileges_of_an_app(temp_dir):
    command = [sys.executable, "-c", USE_WORKSPACE_AND_DATABASE]
    options = ["--grants", "default", "--endpoint-variable", "ENDPOINT"]

    result = run("--as-app", *options, "--", *command)

    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_bundle_of_the_user_stays_in_effect(temp_dir, tmp_path, monkeypatch):
    """Requests to servers other than the emulator continue to work."""
    company = tmp_path / "company.pem"
    company.write_text("the company's authority")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(company))

    result = run("--as-app", "--", "sh", "-c", 'cat "$REQUESTS_CA_BUNDLE"')

    assert "the company's authority" in result.stdout
    assert result.stdout.count("BEGIN CERTIFICATE") == 1


WSGI_APP = """
def application(environ, start_response):
    names = ("HTTP_X_FORWARDED_EMAIL", "HTTP_X_FORWARDED_PROTO", "REMOTE_ADDR")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(environ[name] for name in names).encode()]
"""
# The shell does not replace itself with the server. Newer versions of gunicorn create a
# socket in the home directory.
ENTRYPOINT = f"""
echo starting
export HOME=$PWD
{sys.executable} -m gunicorn wsgi --bind "127.0.0.1:$DATABRICKS_APP_PORT"
exit $?
"""


@pytest.fixture
def site(tmp_path):
    """Return a folder with an app and its entrypoint."""
    (tmp_path / "wsgi.py").write_text(WSGI_APP)
    (tmp_path / "entrypoint.sh").write_text(f"cd {tmp_path}\n{ENTRYPOINT}")
    return tmp_path


@contextlib.contextmanager
def start_app(*command, **options):
    """Run *command* with ``--as-app``; yield the program and the proxy's port."""
    arguments = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
    with started([*COMMAND, "--as-app", *arguments, "--", *command]) as program:
        (port,) = program.wait_for(r"app at http://127\.0\.0\.1:(\d+),")
        yield program, int(port)


def fetch(port, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        return connection.getresponse().read().decode()


def assert_nothing_listens(port):
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


def test_server_behind_the_proxy_sees_the_user_and_stops_on_sigterm(temp_dir, site):
    with start_app("bash", str(site / "entrypoint.sh"), user="me@example.com") as (
        program,
        port,
    ):
        program.wait_for(r"(Booting worker)")
        me = fetch(port)
        other = fetch(port, Cookie="lakebase_local_user=other@example.com")
        processes = get_descendants(program.process.pid)
        status = program.end()

    assert me == "me@example.com https 127.0.0.1"
    assert other == "other@example.com https 127.0.0.1"
    assert status == 128 + signal.SIGTERM
    assert "Shutting down: Master" in program.output
    assert not any(is_alive(pid) for pid in processes)
    assert_nothing_listens(port)
    assert list(temp_dir.iterdir()) == []


def test_server_that_ignores_sigterm_is_killed(temp_dir):
    ignore = 'trap "" TERM; echo ready; while true; do sleep 600; done'
    with start_app("bash", "-c", ignore, stop_timeout=0.05) as (program, _):
        program.wait_for("(ready)")
        processes = get_descendants(program.process.pid)

        assert program.end() == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in processes)
    assert list(temp_dir.iterdir()) == []


def test_ctrl_c_stops_the_app_with_sigterm(temp_dir):
    """The terminal sends SIGINT to the process group, which the app is not in."""
    report = 'trap "echo interrupted" INT; trap "echo stopped; exit 5" TERM; echo ready'
    wait = "while true; do sleep 600 & wait $!; done"
    with start_app("bash", "-c", f"{report}; {wait}") as (program, _):
        program.wait_for("(ready)")
        os.killpg(program.process.pid, signal.SIGINT)

        assert program.wait() == 5
    assert "stopped" in program.output
    assert "interrupted" not in program.output


def test_killed_supervisor_gives_the_status_of_a_killed_process(temp_dir):
    with start_app("bash", "-c", "echo ready; exec sleep 600") as (program, _):
        program.wait_for("(ready)")
        for pid in get_descendants(program.process.pid):
            # PostgreSQL may end a worker process meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if b"as_app.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

        assert program.wait() == 128 + signal.SIGKILL


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_killed_emulator_leaves_no_process_and_no_directory(temp_dir, site, kill):
    """Not even a server that the entrypoint started without exec."""
    with start_app("bash", str(site / "entrypoint.sh")) as (program, port):
        program.wait_for(r"(Booting worker)")
        fetch(port)
        processes = get_descendants(program.process.pid)
        kill(program.process.pid, signal.SIGKILL)
        program.wait()
        for pid in processes:
            wait_until_ended(pid)

    # The shell, the server, its worker, the supervisor and PostgreSQL.
    assert len(processes) > 5
    assert_nothing_listens(port)
    assert run("--", "true").returncode == 0
    assert list(temp_dir.iterdir()) == []


def test_request_is_ended_after_the_timeout_of_the_option(temp_dir):
    listen = (
        "import os, socket, time\n"
        "port = int(os.environ['DATABRICKS_APP_PORT'])\n"
        "server = socket.create_server(('127.0.0.1', port))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    command = [sys.executable, "-c", listen]
    with start_app(*command, request_timeout=0.05) as (program, port):
        program.wait_for("(ready)")

        assert "504: The app did not respond within 0.05 seconds." in fetch(port)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--user", "me@example.com"], 1, "--user requires --as-app"),
        (["--stop-timeout", "1"], 1, "--stop-timeout requires --as-app"),
        (
            ["--as-app", "--app-port", "8000", "--proxy-port", "8000"],
            1,
            "--app-port and --proxy-port must differ",
        ),
        (["--as-app", "--user", "me"], 2, '"me" is not an e-mail address'),
        (["--as-app", "--user", "\u00e9@example.com"], 2, "is not an e-mail address"),
        (["--as-app", "--endpoint-variable", "PGHOST"], 2, '"PGHOST" is not a name'),
        (["--as-app", "--endpoint-variable", "a b"], 2, '"a b" is not a name'),
    ],
)
def test_invalid_option_is_explained(arguments, status, message):
    result = run(*arguments, "--", "true")

    assert result.returncode == status
    assert message in result.stderr


def test_proxy_port_that_is_in_use_is_rejected(temp_dir):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        result = run("--as-app", "--proxy-port", port, "--", "true")

    assert result.returncode == 1
    assert "cannot be used: Address already in use. Give --proxy-port" in result.stderr
    assert "Warning" not in result.stderr
    assert list(temp_dir.iterdir()) == []
