"""Projects on Databricks Apps, as lakebase-local run --as-app imitates the platform."""

import contextlib
import re
import shutil
import subprocess
import sys
from urllib.parse import urljoin

import pytest
import requests

from tests.helpers.app_servers import (
    ANSWERS_WITHIN,
    BIN,
    TOP,
    TTL,
    Load,
    started,
    wait_until,
)

pytest.importorskip("gunicorn")

APP_URL = r"app at (http://127\.0\.0\.1:\d+)"
VARIABLES = (
    "ENDPOINT_NAME",
    "LAKEBASE_ENDPOINT",
    "PGENDPOINT",
    "LAKEBASE_AUTOSCALING_ENDPOINT",
)
TOKEN_FIELD = r'name="csrfmiddlewaretoken" value="([^"]+)"'


class Browser(requests.Session):
    """What a browser does: keeps cookies, follows redirects, and submits forms."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def open(self, path="/"):
        """Return the page at *path*."""
        return self.get(urljoin(self.url, path), timeout=ANSWERS_WITHIN)

    def submit(self, path, **fields):
        """Fill the form of the page at *path*, and return the page that follows."""
        page = self.open(path)
        token = re.search(TOKEN_FIELD, page.text)
        assert token, page.text
        headers = {"Origin": self.url, "Referer": page.url}
        data = {"csrfmiddlewaretoken": token[1], **fields}
        return self.post(page.url, data, headers=headers, timeout=ANSWERS_WITHIN)

    def sign_in(self, email):
        """Sign in as another user."""
        self.get(
            f"{self.url}/_local/sign-in",
            params={"user": email},
            allow_redirects=False,
            timeout=ANSWERS_WITHIN,
        )


@contextlib.contextmanager
def run_as_app(folder, *options, **env):
    """Run the entrypoint in *folder* as an app; yield the program and its URL."""
    command = [str(BIN / "lakebase-local"), "run", "--as-app", *options]
    command += ["--", "bash", "entrypoint.sh"]
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin"
    home = {
        "HOME": str(folder),
        "PATH": path,
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    with started(command, folder, **home, **env) as program:
        [url] = program.wait_for(APP_URL)
        browser = Browser(url)
        wait_until(
            lambda: (
                browser.open().status_code != requests.codes.bad_gateway
                or program.process.poll() is not None
            )
        )
        assert program.process.poll() is None, program.output
        yield program, url


@pytest.mark.parametrize("variable", [None, *VARIABLES])
def test_project_of_the_templates_needs_only_the_engine(tmp_path, variable):
    """With each name of the variable, and with none: then the host is enough."""
    shutil.copytree(TOP / "tests/projects/databricks_app", tmp_path / "source_code")
    options = [f"--token-ttl={TTL}", "--user=ann@example.com"]
    if variable:
        options += ["--endpoint-variable", variable]

    with run_as_app(tmp_path / "source_code", *options) as (program, url):

        def ask():
            page = Browser(url).open()
            assert page.status_code == requests.codes.ok, page.text
            return page.json()

        with Load(ask, clients=2) as load:
            load.wait_until(
                lambda: any(facts["credentials"] > 2 for facts in load.answers)
            )
        status = program.end()

    facts = load.answers[-1]
    assert facts["user"] == "ann@example.com"
    assert facts["schema"] == f"local-app_schema_{facts['role'].replace('-', '')}"
    assert facts["migrations"] > 10
    assert status == 0
    assert "Shutting down: Master" in program.output
    assert "Traceback" not in program.output


def start_project(folder):
    """Create a project from the template, as docs/howto/databricks-apps.md does."""
    located = [sys.executable, "-m", "django_lakebase.contrib.databricks_apps"]
    template = subprocess.check_output(located, text=True).strip()
    command = [str(BIN / "django-admin"), "startproject", "--template", template]
    folder.mkdir()
    subprocess.check_call([*command, "--extension=py,yml,md", "mysite", str(folder)])


def test_project_template_signs_users_in_and_serves_the_admin(tmp_path):
    folder = tmp_path / "mysite"
    start_project(folder)

    with run_as_app(folder, SUPERUSERS="boss@example.com") as (program, url):
        ann, boss = Browser(url), Browser(url)
        ann.sign_in("ann@example.com")
        boss.sign_in("boss@example.com")
        written = ann.submit("/", text="Buy milk")
        seen = boss.open("/")
        refused = ann.open("/admin/")
        admin = boss.open("/admin/")
        style = re.search(r'href="(/static/admin/[^"]+\.css)"', admin.text)
        added = boss.submit("/admin/notes/note/add/", text="Call Ann", author="1")
        status = program.end()

    assert "Signed in as ann@example.com" in written.text
    assert "Buy milk" in seen.text
    assert "Signed in as boss@example.com" in seen.text
    assert "/admin/login/" in refused.url
    assert style
    assert "was added successfully" in added.text
    # The platform signs users in also inside a frame of another site.
    assert seen.headers["X-Frame-Options"] == "DENY"
    assert re.search(r"\+0000\] \"GET / HTTP", program.output), program.output
    assert status == 0
    assert "Traceback" not in program.output
    assert program.output.count("lakebase.W") == 1  # W011, for PGSSLMODE=require.


def test_bundle_of_the_project_template_excludes_files_of_this_machine(tmp_path):
    """The guide puts the data of the local Lakebase into the project's folder."""
    start_project(tmp_path / "mysite")
    bundle = (tmp_path / "mysite/databricks.yml").read_text()

    excluded = bundle.partition("exclude:")[2].partition("targets:")[0]
    assert all(f"- {name}\n" in excluded for name in ("staticfiles", ".lakebase"))


def test_tests_of_the_project_template_pass(tmp_path):
    """Also its migrations are complete."""
    folder = tmp_path / "mysite"
    start_project(folder)
    manage = ["run", "--", sys.executable, "manage.py"]

    for arguments in (["makemigrations", "--check"], ["test"]):
        with started(
            [str(BIN / "lakebase-local"), *manage, *arguments],
            folder,
            DJANGO_SETTINGS_MODULE="mysite.settings",
        ) as program:
            assert program.wait() == 0, program.output
        assert "WARNINGS:" not in program.output


def test_example_runs_as_an_app_unchanged(tmp_path):
    """Under the name that the platform gives to its folder."""
    folder = tmp_path / "source_code"
    shutil.copytree(TOP / "example_project", folder)

    with run_as_app(
        folder, "--user=boss@example.com", SUPERUSERS="boss@example.com"
    ) as (program, url):
        boss, ann = Browser(url), Browser(url)
        ann.sign_in("ann@example.com")
        page = boss.open("/")
        added = boss.submit("/admin/notes/note/add/", text="From the admin")
        style = boss.open("/static/admin/css/base.css")
        refused = ann.open("/admin/")
        seen = ann.open("/")
        status = program.end()

    assert page.status_code == requests.codes.ok
    assert "was added successfully" in added.text
    assert style.status_code == requests.codes.ok
    assert "/admin/login/" in refused.url
    assert "From the admin" in seen.text
    assert status == 0
    assert "Traceback" not in program.output
