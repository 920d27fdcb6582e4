"""The example project, as ``make demo`` runs it."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from django_lakebase.local.client import VARIABLE_PREFIXES

TOP = Path(__file__).parents[3]
DEMO = [sys.executable, "-m", "example_project.demo"]
SETTINGS = "example_project.settings"
# A URL that nearly fills a pipe when it is logged, and enough requests to fill the pipe
# and to block each connection of the pool: an answer is logged after it was sent.
LONG, MANY = "x" * 60000, 10
# Requests the page in the process whose settings were changed.
NATIVE = """
import json, os
from example_project import settings
settings.DATABASES["default"] |= json.loads(os.environ["OWN"])
import django
django.setup()
from django.core.management import call_command
from django.test import Client
print(Client(SERVER_NAME="localhost").get("/").content.decode())
print(Client(SERVER_NAME="localhost").get("/facts.json").content.decode())
"""
TIMELINE = """
import django
django.setup()
from django.test import Client
print(Client(SERVER_NAME="localhost").get("/timeline").content.decode())
"""


def run(*command, **variables):
    """Run *command* in the root of the project until it exits."""
    return subprocess.run(
        command,
        cwd=TOP,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": SETTINGS, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def started(*command, **variables):
    """Run *command* in the root of the project until the block ends."""
    with subprocess.Popen(
        command,
        cwd=TOP,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module", autouse=True)
def short_demo():
    """Start the slowest demo first, so that it runs during the other tests."""
    local = [sys.executable, "-m", "django_lakebase.local", "run", "--token-ttl", "3"]
    with started(*local, "--", *DEMO, "--once") as process:
        yield process


@pytest.fixture(scope="module")
def site(lakebase):
    """Yield the port of the page; Ctrl-C then stops the demo without a traceback."""
    with started(*DEMO, **lakebase.env) as process:
        lines = iter(process.stdout.readline, "")
        found = (re.search(r"http://127\.0\.0\.1:(\d+)/", line) for line in lines)
        port = next((int(match[1]) for match in found if match), None)
        assert port, process.stderr.read()
        yield port
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
        assert (process.returncode, complaint) == (0, "")
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/")


def ask(port, path, *, body=None, cookie=""):
    """Return the status, headers and text of the answer to one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        headers = {"Cookie": cookie} if cookie else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def cookies(headers):
    """Return the cookies that a browser would send back."""
    set_by = headers.get_all("Set-Cookie") or []
    return dict(line.partition(";")[0].split("=", 1) for line in set_by)


def test_demo_once_shows_three_rotations(short_demo):
    """Every request succeeds."""
    said, complaint = short_demo.communicate(timeout=120)

    assert short_demo.returncode == 0, complaint
    assert "3 rotations in " in said
    assert "requests, all answered, took" in said


def test_demo_fails_if_its_command_fails(local):
    with local.fault("role-missing"):
        found = run(*DEMO, "--once", **local.env)

    assert found.returncode == 1
    assert "demo: manage.py migrate failed: DATABASES" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("port", "said"),
    [("taken", "cannot be used"), ("99999", "PORT=99999 is not a port")],
)
def test_unavailable_port_is_reported_first(lakebase, port, said):
    wanted = str(lakebase.facts["port"]) if port == "taken" else port

    found = run(*DEMO, "--port", wanted, **lakebase.env)

    assert (found.returncode, found.stdout) == (1, "")
    assert said in found.stderr


def test_demo_does_not_run_on_a_real_workspace(monkeypatch):
    """It prints how to run it."""
    monkeypatch.delenv("LAKEBASE_LOCAL_URL", raising=False)

    found = run(*DEMO)

    assert (found.returncode, found.stderr) == (1, "Run it as: make demo\n")


def test_page_without_javascript_shows_rows_and_connection(lakebase, site):
    status, _, page = ask(site, "/")

    assert status == 200
    assert "This row came through a TLS connection" in page
    assert f'<dd id="logged_in_as">{lakebase.env["DATABRICKS_CLIENT_ID"]}</dd>' in page
    assert "yes, host verified (sslmode=verify-full)" in page
    assert '<meta http-equiv="refresh"' in page


def test_timeline_shows_tokens_connections_and_requests(lakebase, site):
    """It is part of the page, and contains no secret."""
    page, timeline = (ask(site, path)[2] for path in ("/", "/timeline"))

    for text in (page, timeline):
        assert re.search(r"<desc [^>]*>1 token, [1-4] connections? opened, [1-9]", text)
        assert 'class="used ahead"' in text
        assert "other worker processes" not in text
        assert lakebase.env["DATABRICKS_CLIENT_SECRET"] not in text
        assert "eyJ" not in text


def test_timeline_is_not_counted_as_a_request(site):
    first = json.loads(ask(site, "/facts.json")[2])
    ask(site, "/timeline")
    second = json.loads(ask(site, "/facts.json")[2])

    assert second["requests"] == first["requests"] + 1


def test_timeline_needs_no_database():
    """The page shows an outage while it lasts."""
    without = {name: "" for name in os.environ if name.startswith(VARIABLE_PREFIXES)}

    found = run(sys.executable, "-c", TIMELINE, **without)

    assert found.returncode == 0, found.stderr
    assert "Connections: none" in found.stdout


def test_facts_count_requests_connections_and_credentials(lakebase, site):
    first, second = (json.loads(ask(site, "/facts.json")[2]) for _ in range(2))

    assert second["requests"] == first["requests"] + 1
    assert second["credentials"] == 1
    assert 1 <= second["connections"] <= 4
    assert second["connection_age"] >= 0
    assert 3500 < second["credential_left"] <= 3600
    assert second["notes"] == 3


def test_demo_reads_the_log_of_the_server(site):
    """The server would block once the pipe is full."""
    for _ in range(MANY):
        status, _, _ = ask(site, f"/facts.json?{LONG}")

        assert status == 200


def test_superuser_logs_in_to_the_admin(lakebase, site):
    own = {"DJANGO_SUPERUSER_PASSWORD": "only for this test"}
    new = ["createsuperuser", "--noinput", "--username=ann", "--email=ann@example.com"]
    made = run(sys.executable, "manage.py", *new, **lakebase.env, **own)
    assert made.returncode == 0, made.stderr
    token = cookies(ask(site, "/admin/login/")[1])["csrftoken"]
    form = {"username": "ann", "password": "only for this test"}
    form |= {"csrfmiddlewaretoken": token, "next": "/admin/notes/note/"}

    body = urllib.parse.urlencode(form)
    status, headers, _ = ask(
        site, "/admin/login/", body=body, cookie=f"csrftoken={token}"
    )

    assert status == 302
    session = cookies(headers)["sessionid"]
    listed = ask(site, "/admin/notes/note/", cookie=f"sessionid={session}")
    assert "3 notes" in listed[2]


def test_page_of_a_native_login_shows_no_expiry(lakebase, site, new_wrapper):
    role = lakebase.facts["native_user"]
    with new_wrapper().cursor() as cursor:
        cursor.execute(f'GRANT SELECT ON notes_note TO "{role}"')
    own = {
        "HOST": lakebase.facts["host"],
        "USER": role,
        "PASSWORD": lakebase.facts["native_password"],
        "OPTIONS": {"hostaddr": lakebase.facts["hostaddr"], "pool": True},
    }

    found = run(sys.executable, "-c", NATIVE, **lakebase.env, OWN=json.dumps(own))

    assert found.returncode == 0, found.stderr
    assert "never: a native password" in found.stdout
    facts = json.loads(found.stdout.splitlines()[-1])
    assert facts["logged_in_as"] == role
    assert (facts["credential_left"], facts["credentials"]) == (None, 0)


def test_example_project_has_no_missing_migrations(lakebase):
    """The system checks, which run first, pass."""
    command = ["manage.py", "makemigrations", "--check", "--dry-run"]

    found = run(sys.executable, *command, **lakebase.env)

    assert found.returncode == 0, found.stderr
