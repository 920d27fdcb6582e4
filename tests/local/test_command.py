"""``lakebase-local`` as a person types it."""

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
from tests.helpers.sessions import open_session

COMMAND = [sys.executable, "-m", "django_lakebase.local"]


@pytest.fixture
def place(monkeypatch):
    """Give a directory for temporary files that is ours alone."""
    # Not pytest's own: as root the server runs as an account that cannot get there.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def run(*arguments, **own):
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, **own
    )


def alive(pid):
    """Return whether a process is there and no corpse."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def children_of(pid):
    """Return the processes that *pid* started."""
    return [
        int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]


def test_run_sets_every_variable_and_no_other(place, monkeypatch):
    """What the parent says of another workspace does not get through."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "another's")
    monkeypatch.setenv("PGPASSWORD", "another's")
    names = "import os, json; print(json.dumps(dict(os.environ)))"

    found = run("run", "--libpq", "--", sys.executable, "-c", names)

    env = json.loads(found.stdout)
    assert found.returncode == 0
    assert {
        "DATABRICKS_HOST",
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
    } < set(env)
    assert {"ENDPOINT_NAME", "PGHOST", "PGDATABASE", "PGUSER", "PGPORT"} < set(env)
    assert {"PGSSLMODE", "PGSSLROOTCERT", "PGHOSTADDR", "LAKEBASE_LOCAL_URL"} < set(env)
    assert not {"DATABRICKS_TOKEN", "PGPASSWORD"} & set(env)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 15)", 143)],
    ids=["exit", "signal"],
)
def test_run_ends_as_its_command_does(place, code, status):
    """Scripts look at the status."""
    assert run("run", "--", sys.executable, "-c", code).returncode == status


def test_run_says_what_cannot_be_run(place):
    """As a shell does."""
    found = run("run", "--", "no-such-command")

    assert found.returncode == 127
    assert "no-such-command cannot be run" in found.stderr


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1],
)
def test_signals_are_passed_on_and_nothing_stays(place, number):
    """The command hears them, and the end is clean."""
    code = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen(
        [*COMMAND, "run", "--", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        started = children_of(process.pid)
        process.send_signal(number)

        assert process.wait(30) == 5
    assert not any(alive(pid) for pid in started)
    assert list(place.iterdir()) == []


def test_killed_it_takes_its_children_along(place):
    """And the next start removes what it left."""
    with subprocess.Popen(
        [*COMMAND, "start", "--format", "json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        told = json.loads(process.stdout.readline())
        children = children_of(process.pid)
        process.kill()
        process.wait()
    left = list(place.iterdir())

    for pid in children:
        while alive(pid):
            os.sched_yield()
    assert len(children) >= 1
    assert [str(Path(told["env"]["PGSSLROOTCERT"]).parent)] == [str(p) for p in left]
    assert run("run", "--", "true").returncode == 0
    assert list(place.iterdir()) == []


def test_it_ends_with_a_test_run_that_was_killed(place):
    """A run that is killed cannot stop what it started."""
    program = (
        "import sys, time\n"
        "from django_lakebase.local.client import LocalLakebase\n"
        "with LocalLakebase.start():\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        (server,) = children_of(process.pid)
        process.kill()
        process.wait()

    while alive(server):
        os.sched_yield()

    assert list(place.iterdir()) == []


def test_no_proxy_is_asked_for_this_machine_s_ports(place, monkeypatch):
    """A company's proxy in the environment would be."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "intranet.test")

    done = run("run", "--", "sh", "-c", "echo $no_proxy $NO_PROXY")

    assert done.stdout.split() == ["intranet.test,127.0.0.1"] * 2


@pytest.mark.parametrize("style", ["shell", "dotenv"])
def test_start_prints_the_variables(place, style):
    """For a shell to read, or for a file."""
    with subprocess.Popen(
        [*COMMAND, "start", "--format", style], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = [process.stdout.readline() for _ in range(12)]
        process.terminate()
        assert process.wait(30) == 0

    prefix = "export " if style == "shell" else ""
    assert any(line.startswith(f"{prefix}ENDPOINT_NAME=projects/") for line in lines)


def test_kept_data_is_there_again(tmp_path, place):
    """With the same names and secrets."""
    kept = place / "kept"
    secrets = []
    for statement in ("CREATE TABLE kept (n int)", "DROP TABLE kept"):
        with LocalLakebase.start("--data", str(kept)) as local:
            facts = local.facts
            secrets.append(local.env["DATABRICKS_CLIENT_SECRET"])
            native = {
                "user": facts["native_user"],
                "password": facts["native_password"],
            }
            with open_session(local, **native) as session:
                session.execute(statement)
            busy = run("run", "--data", str(kept), "--", "true")
            assert "in use by another" in busy.stderr

    assert secrets[0] == secrets[1]


def test_a_directory_with_too_long_a_name(place):
    """A socket's name has a limit, and the error says what to shorten."""
    found = run("run", "--data", str(place / ("long" * 25)), "--", "true")

    assert found.returncode == 1
    assert "Use a shorter TMPDIR or --data" in found.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server has another account")
def test_a_directory_that_the_server_s_account_cannot_reach(place):
    """As root the way to it must be open to all."""
    (place / "closed").mkdir(mode=0o700)

    found = run("run", "--data", str(place / "closed" / "data"), "--", "true")

    assert found.returncode == 1
    assert f"cannot access {place / 'closed'}" in found.stderr


def test_a_foreign_directory_is_left_alone(tmp_path):
    """Nothing is written to where other files are."""
    (tmp_path / "precious").write_text("data")

    found = run("run", "--data", str(tmp_path), "--", "true")

    assert found.returncode == 1
    assert "was not made by lakebase-local" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("option", ["--pg-port", "--api-port"])
def test_a_port_that_is_taken(place, option):
    """The option is named, and nothing stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = run("run", option, str(taken.getsockname()[1]), "--", "true")

    assert found.returncode == 1
    assert f"Give {option} another one" in found.stderr
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "run needs a command"),
        (["run", "--fault", "no-such", "--", "true"], "There is no fault"),
        (["fault", "list"], "LAKEBASE_LOCAL_URL is not set"),
        (["fault", "set"], "LAKEBASE_LOCAL_URL is not set"),
    ],
)
def test_mistakes_are_told(arguments, said, monkeypatch):
    """In a sentence, with the status of a failure."""
    monkeypatch.delenv("LAKEBASE_LOCAL_URL", raising=False)

    found = run(*arguments)

    assert found.returncode == 1
    assert said in found.stderr


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
def test_numbers_that_cannot_be_are_refused(option, value):
    """Before anything starts, and with what may be given."""
    found = run("run", f"{option}={value}", "--", "true")

    assert found.returncode == 2
    assert f'argument {option}: "{value}" is not a' in found.stderr


def test_an_address_that_is_none_is_told(monkeypatch):
    """In a sentence, and not as urllib's error."""
    monkeypatch.setenv("LAKEBASE_LOCAL_URL", "nonsense")

    found = run("fault", "list")

    assert found.returncode == 1
    assert "No local Lakebase answers at nonsense" in found.stderr
    assert "Traceback" not in found.stderr


def test_faults_are_set_from_a_shell(local):
    """Of the one that runs."""
    env = {**os.environ, "LAKEBASE_LOCAL_URL": local.url}

    assert run("fault", "set", "latency", "ms=5", env=env).stdout == "latency ms=5.0\n"
    assert run("fault", "list", env=env).stdout == "latency ms=5.0\n"
    assert run("fault", "clear", env=env).stdout == ""
    assert "needs a NAME" in run("fault", "set", env=env).stderr
    assert "There is no fault" in run("fault", "clear", "x", env=env).stderr


def test_a_fault_may_be_there_from_the_start(place):
    """For a command that is to meet it."""
    with LocalLakebase.start("--fault", "latency:ms=3") as local:
        assert local.facts["token_ttl"] == 3600.0
        found = run(
            "fault", "list", env={**os.environ, "LAKEBASE_LOCAL_URL": local.url}
        )

    assert found.stdout == "latency ms=3.0\n"


HANGS_UP = """
import os, socket, struct, urllib.parse, urllib.request
url = os.environ["DATABRICKS_HOST"]
with socket.create_connection(urllib.parse.urlsplit(url).netloc.split(":")) as client:
    client.sendall(b"POST /oidc/v1/token HTTP/1.1\\r\\nHost: x\\r\\n"
                   b"Content-Type: application/x-www-form-urlencoded\\r\\n"
                   b"Content-Length: 9\\r\\nExpect: 100-continue\\r\\n\\r\\n")
    assert client.recv(99).startswith(b"HTTP/1.1 100")  # It reads the body now.
    reset = struct.pack("ii", 1, 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
urllib.request.urlopen(url + "/.well-known/databricks-config").close()
"""


def test_a_client_that_hangs_up_is_no_error(place):
    """In the midst of a request, as a process does that is killed."""
    found = run("run", "--", sys.executable, "-c", HANGS_UP)

    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_on_path_that_is_not_ours_is_passed_over(place, monkeypatch):
    """As sudo and su leave them there."""
    locked = place / "locked"
    locked.mkdir(mode=0)
    monkeypatch.setenv("PATH", f"{locked / 'bin'}{os.pathsep}{os.environ['PATH']}")

    assert run("run", "--", "true").returncode == 0


def test_the_embedded_postgresql_serves_too(place):
    """Where the system has none."""
    with LocalLakebase.start("--postgres", "embedded", "--grants", "guide") as local:
        facts = local.facts
        with open_session(local) as session:
            version = session.info.server_version // 10000
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("CREATE TABLE x ()")

    assert version == facts["postgres_version"] >= 16


def test_help_lists_the_faults():
    """Whoever looks for one finds it there."""
    found = run("--help")

    assert found.returncode == 0
    assert "refuse-logins" in found.stdout


def test_api_over_tls():
    """Its address and its authority's file are for the SDK; faults need neither."""
    with LocalLakebase.start("--api-tls") as local:
        url = local.env["DATABRICKS_HOST"]
        path = f"{url}/oidc/.well-known/oauth-authorization-server"
        context = ssl.create_default_context(cafile=local.env["REQUESTS_CA_BUNDLE"])
        with urllib.request.urlopen(path, context=context) as answer:
            told = json.load(answer)
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(path)
        with local.fault("latency"):
            pass

    assert url.startswith("https://127.0.0.1:")
    assert told["token_endpoint"] == f"{url}/oidc/v1/token"
    assert local.url.startswith("http://127.0.0.1:")
