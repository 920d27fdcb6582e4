"""Variables and files of other programs, which must not mislead the engine."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import certifi
import psycopg
import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections

from django_lakebase.config import libpq
from django_lakebase.diagnosis.step import Status
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import LakebaseError, SettingsError
from django_lakebase.local.gateway import wire
from tests.helpers.queries import fetch_value

TOP = Path(__file__).parents[3]
ELSEWHERE = "127.0.0.2"
# Early versions of psycopg 3.2 report only the system's error.
UNRESOLVED = r"resolve host|\[Errno -\d\]"


class Decoy:
    """A listener at another address, which records what clients send."""

    def __init__(self, port, context):
        self.received = []
        self._context = context
        self._server = socket.create_server((ELSEWHERE, port))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                self._serve(client)

    def _serve(self, client):
        self.received.append("a connection")
        self.received.append(client.recv(4096))
        if self._context is not None:
            client.sendall(b"S")
            client = self._context.wrap_socket(client, server_side=True)
            self.received.append(client.recv(4096))
        client.sendall(wire.PASSWORD_REQUEST)
        self.received.append(client.recv(4096))

    def close(self):
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture(params=["tls", "plain"])
def decoy(request, local):
    """Yield a listener at the port of the gateway at another address."""
    context = None
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("elsewhere.example").configure_cert(context)
    listener = Decoy(local.facts["port"], context)
    yield listener
    listener.close()


@pytest.fixture
def service_file(local, tmp_path):
    """Return a service file that names another server, without TLS."""
    file = tmp_path / "pg_service.conf"
    file.write_text(
        f"[other]\nhostaddr={ELSEWHERE}\nport={local.facts['port']}\nsslmode=disable\n"
    )
    return file


def dbshell(environment):
    """Run ``manage.py dbshell`` with one statement."""
    return subprocess.run(
        [sys.executable, "manage.py", "dbshell", "--", "-X", "-Atc", "SELECT 1"],
        cwd=TOP,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


needs_psql = pytest.mark.skipif(not shutil.which("psql"), reason="there is no psql")


ways = pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["wrapper", "pool"])


@ways
def test_pghostaddr_does_not_redirect_the_token(
    new_wrapper, local, decoy, monkeypatch, options
):
    """With sslmode=require any certificate is accepted, so the address decides."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.delenv("PGSSLROOTCERT")
    wrapper = new_wrapper(OPTIONS={**options, "hostaddr": local.facts["hostaddr"]})

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert [step.status for step in Diagnosis(wrapper).run()].count(Status.FAIL) == 0
    assert decoy.received == []


@ways
def test_pghostaddr_does_not_replace_the_host_name(
    new_wrapper, local, decoy, monkeypatch, options
):
    """An alias without hostaddr resolves its host."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    for name in ("LAKEBASE_HOSTADDR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name)
    wrapper = new_wrapper(OPTIONS={"connect_budget": 2, **options})

    with pytest.raises(LakebaseError) as caught:
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id in ("wrong-host", "waking")
    assert re.search(UNRESOLVED, str(caught.value))
    assert decoy.received == []


def test_params_for_other_libraries_override_pghostaddr(
    new_wrapper, decoy, monkeypatch
):
    """They keep the parameters, and connect in the same environment."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    for name in ("LAKEBASE_HOSTADDR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name)

    with pytest.raises(psycopg.OperationalError, match=UNRESOLVED):
        psycopg.connect(**new_wrapper().get_connection_params())
    assert decoy.received == []


@needs_psql
@pytest.mark.parametrize("has_address", [True, False])
def test_dbshell_ignores_pghostaddr(local, decoy, has_address):
    own = {} if has_address else {"LAKEBASE_HOSTADDR": "", "PGSSLROOTCERT": ""}
    found = dbshell({"PGHOSTADDR": ELSEWHERE, "PGSSLMODE": "require", **own})

    assert found.stdout == ("1\n" if has_address else "")
    assert decoy.received == []


@needs_psql
def test_dbshell_rejects_pgservice(local, decoy, service_file):
    """A service file could disable TLS and name another address."""
    found = dbshell({"PGSERVICE": "other", "PGSERVICEFILE": str(service_file)})

    assert found.returncode == 1
    assert 'PGSERVICE is "other"' in found.stderr
    assert "Traceback" not in found.stderr
    assert decoy.received == []


def test_pgservice_is_rejected(new_wrapper, local, decoy, service_file, monkeypatch):
    """Libpq has no way to ignore it."""
    monkeypatch.setenv("PGSERVICE", "other")
    monkeypatch.setenv("PGSERVICEFILE", str(service_file))

    with pytest.raises(SettingsError, match='PGSERVICE is "other"') as caught:
        fetch_value(new_wrapper(), "SELECT 1")

    assert caught.value.failure_id == "libpq-variable"
    assert decoy.received == []


def test_service_in_settings_is_used_with_its_address(
    new_wrapper, local, tmp_path, monkeypatch
):
    """Variables that psycopg would prefer are rejected."""
    facts, file = local.facts, tmp_path / "pg_service.conf"
    file.write_text(
        f"[shop]\nhost={facts['host']}\nhostaddr={facts['hostaddr']}\n"
        f"port={facts['port']}\ndbname={facts['database']}\n"
        f"user={facts['native_user']}\npassword={facts['native_password']}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.delenv("PGHOST")
    wrapper = new_wrapper(OPTIONS={"service": "shop", "sslmode": "require"})

    assert fetch_value(wrapper, "SELECT 1") == 1
    for name in ("PGHOST", "PGHOSTADDR"):
        monkeypatch.setenv(name, ELSEWHERE)
        with pytest.raises(ImproperlyConfigured, match=f'{name} is "{ELSEWHERE}"'):
            wrapper.get_target()
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGREQUIREAUTH", "!password"),
        ("PGCHANNELBINDING", "require"),
    ],
)
def test_variable_that_breaks_every_login_is_rejected_without_a_request(
    new_wrapper, local, monkeypatch, name, value
):
    """Following the hint leads to a connection."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f'{name} is "{value}"') as caught:
        fetch_value(new_wrapper(), "SELECT 1")
    assert local.fetch_counters()["requests"] == {}

    assert f"Remove {name}" in caught.value.hint
    monkeypatch.delenv(name)
    assert fetch_value(new_wrapper(), "SELECT 1") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGREQUIREAUTH", "password,scram-sha-256"), ("PGCHANNELBINDING", "prefer")],
)
def test_require_auth_variable_that_allows_tokens_is_kept(
    new_wrapper, monkeypatch, name, value
):
    monkeypatch.setenv(name, value)

    assert fetch_value(new_wrapper(), "SELECT 1") == 1


def test_native_login_keeps_its_authentication_variables(
    new_wrapper, local, monkeypatch
):
    """Its password can be sent with SCRAM."""
    facts = local.facts
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    wrapper = new_wrapper(
        HOST=facts["host"],
        USER=facts["native_user"],
        PASSWORD=facts["native_password"],
        OPTIONS={"hostaddr": facts["hostaddr"]},
    )

    assert fetch_value(wrapper, "SELECT 1") == 1


def warnings_of(wrapper):
    """Return the ids of the steps with a warning; all others are ok."""
    steps = list(Diagnosis(wrapper).run())
    assert {step.status for step in steps} <= {Status.OK, Status.WARN}
    return [step.id for step in steps if step.status is Status.WARN]


def test_unreadable_home_is_ignored(new_wrapper, local, unreadable_home, monkeypatch):
    """Supervisord and ``su`` leave one; libpq looks for client certificates there."""
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.delenv("PGSSLROOTCERT")

    wrapper = new_wrapper()

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert warnings_of(wrapper) == ["tls"]


def test_certificates_in_home_are_ignored(new_wrapper, local, tmp_path, monkeypatch):
    """Libpq would verify the server against a root.crt of another authority."""
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    other = trustme.CA()
    other.cert_pem.write_to_path(str(folder / "root.crt"))
    for name in ("postgresql.crt", "postgresql.key", "root.crl"):
        (folder / name).write_text("not a certificate")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.delenv("PGSSLROOTCERT")
    wrapper = new_wrapper()

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert warnings_of(wrapper) == ["tls"]


@pytest.fixture
def public_authority(local, tmp_path, monkeypatch):
    """Make the local authority one of the public ones; no variable sets sslmode."""
    bundle = tmp_path / "bundle.pem"
    own = Path(local.facts["ca_file"]).read_text()
    bundle.write_text(Path(certifi.where()).read_text() + own)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.delenv("PGSSLROOTCERT")


def test_token_is_sent_only_to_a_verified_server(new_wrapper, monkeypatch):
    """By default. The error names both ways out."""
    monkeypatch.delenv("PGSSLMODE")
    monkeypatch.delenv("PGSSLROOTCERT")

    with pytest.raises(LakebaseError) as caught:
        new_wrapper().ensure_connection()

    assert caught.value.failure_id == "certificate-not-verified"
    assert 'OPTIONS["sslrootcert"] (PGSSLROOTCERT)' in caught.value.hint
    assert 'OPTIONS["sslmode"] (PGSSLMODE) to require' in caught.value.hint


def test_public_authority_needs_no_setting(new_wrapper, public_authority):
    wrapper = new_wrapper()

    assert fetch_value(wrapper, "SELECT 1") == 1
    [tls] = [step for step in Diagnosis(wrapper).run() if step.id == "tls"]
    assert tls.status is Status.OK
    assert "host verified (sslmode=verify-full)" in tls.detail


def test_step_for_tls_tries_what_require_does_not_verify(
    new_wrapper, public_authority, monkeypatch
):
    """Where verify-full succeeds, one setting is enough; elsewhere it needs a file."""
    monkeypatch.setenv("PGSSLMODE", "require")
    for is_public, said in (
        (True, 'succeeds here: set OPTIONS["sslmode"] (PGSSLMODE) to it.'),
        (False, "fails here (certificate verify failed)"),
    ):
        if not is_public:
            monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
        wrapper = new_wrapper()

        [tls] = [step for step in Diagnosis(wrapper).run() if step.id == "tls"]

        assert tls.status is Status.WARN
        assert "certificate not verified (sslmode=require)" in tls.detail
        assert said in tls.hint


def test_step_for_tls_names_the_setting_of_another_host(
    new_wrapper, public_authority, monkeypatch
):
    """A file of certificates would not help."""
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGHOST", "alias.example.com")

    [tls] = [step for step in Diagnosis(new_wrapper()).run() if step.id == "tls"]

    assert "does not match host name" in tls.hint
    assert "Correct PGHOST:" in tls.hint
    assert "PGSSLROOTCERT" not in tls.hint


def test_step_for_tls_says_nothing_that_it_has_not_tried(
    new_wrapper, local, monkeypatch
):
    """A list of hosts, from which libpq chooses, may contain several names."""
    facts = local.facts
    monkeypatch.setenv("PGHOST", f"{facts['host']},{facts['host']}")
    monkeypatch.setenv("LAKEBASE_HOSTADDR", "127.0.0.1,127.0.0.1")

    [tls] = [step for step in Diagnosis(new_wrapper()).run() if step.id == "tls"]

    assert tls.detail == "TLS, host verified (sslmode=verify-full)"


@pytest.mark.parametrize("options", [{"sslrootcert": "system"}, {}])
def test_sslrootcert_system_uses_ssl_cert_file(
    new_wrapper, local, monkeypatch, options, tmp_path
):
    """Here it contains the local authority."""
    monkeypatch.setenv("SSL_CERT_FILE", local.facts["ca_file"])
    monkeypatch.delenv("PGSSLROOTCERT")
    wrapper = new_wrapper(OPTIONS={"sslmode": "verify-full", **options})

    assert fetch_value(wrapper, "SELECT 1") == 1
    [tls] = [step for step in Diagnosis(wrapper).run() if step.id == "tls"]
    assert "host verified" in tls.detail


def test_client_certificate_in_settings_is_sent(new_wrapper):
    params = new_wrapper(OPTIONS={"sslcert": "/own.crt"}).get_connection_params()

    assert params["sslcert"] == "/own.crt"
    assert params["sslcertmode"] == "allow"


def test_pgoptions_is_ignored_for_a_database_of_the_settings(
    new_wrapper, local, monkeypatch
):
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    facts = local.facts
    own = new_wrapper(OPTIONS={"endpoint": facts["endpoint"], "hostaddr": "127.0.0.1"})
    named = new_wrapper(HOST=facts["host"], OPTIONS={"hostaddr": facts["hostaddr"]})

    assert fetch_value(own, "SHOW work_mem") == "4MB"
    assert fetch_value(named, "SHOW work_mem") == "5MB"


def test_quoted_pgoptions_that_are_used_have_no_warning(new_wrapper, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", '"-c work_mem=5MB"')
    params = new_wrapper().get_connection_params()

    assert libpq.ignored_variables_warning(params, os.environ) == ("", "")


@pytest.mark.parametrize(("text", "bound"), [("7", 7), ("0", None), ("", None)])
def test_pgconnect_timeout_limits_an_attempt(new_wrapper, monkeypatch, text, bound):
    """As in libpq, 0 means no limit."""
    monkeypatch.setenv("PGCONNECT_TIMEOUT", text)
    wrapper = new_wrapper()

    assert (wrapper.get_target().connect_timeout or None) == bound
    assert fetch_value(wrapper, "SELECT 1") == 1


def test_invalid_pgconnect_timeout_is_rejected(new_wrapper, monkeypatch):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "soon")

    with pytest.raises(ImproperlyConfigured, match='PGCONNECT_TIMEOUT is "soon"'):
        fetch_value(new_wrapper(), "SELECT 1")


def test_none_in_settings_counts_as_empty(new_wrapper, local):
    """``os.environ.get("DBNAME")`` returns None for an unset variable."""
    keys = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
    options = dict.fromkeys(("sslmode", "connect_budget", "pool", "isolation_level"))
    wrapper = new_wrapper(**dict.fromkeys(keys), OPTIONS=options)

    assert fetch_value(wrapper, "SELECT current_database()") == local.facts["database"]


def test_options_may_be_none(new_wrapper):
    assert fetch_value(new_wrapper(OPTIONS=None), "SELECT 1") == 1


def test_numbers_and_switches_given_as_text_are_converted(new_wrapper):
    """As text, "False" would be true."""
    wrapper = new_wrapper(
        CONN_MAX_AGE="600",
        CONN_HEALTH_CHECKS="False",
        PORT=int(os.environ["PGPORT"]),
        OPTIONS={"pool": "off", "reconnect": "No", "prepare_threshold": "5"},
    )

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert wrapper.settings_dict["CONN_HEALTH_CHECKS"] is False
    assert wrapper.connection.prepare_threshold == 5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"CONN_MAX_AGE": "ten minutes"}, 'CONN_MAX_AGE is "ten minutes"'),
        ({"CONN_HEALTH_CHECKS": "perhaps"}, 'CONN_HEALTH_CHECKS is "perhaps"'),
        ({"OPTIONS": {"reconnect": "perhaps"}}, 'OPTIONS["reconnect"] is "perhaps"'),
        ({"OPTIONS": {"connect_timeout": "soon"}}, 'OPTIONS["connect_timeout"]'),
    ],
)
@pytest.mark.parametrize("password", ["", "native"], ids=["token", "native"])
def test_ambiguous_text_in_settings_is_rejected(
    new_wrapper, local, settings, named, password
):
    """Never with a TypeError that does not name the alias."""
    if password:
        facts = local.facts
        own = {"HOST": facts["host"], "USER": facts["native_user"]}
        settings = {**settings, **own, "PASSWORD": password}

    with pytest.raises(ImproperlyConfigured) as caught:
        fetch_value(new_wrapper(**settings), "SELECT 1")

    assert str(caught.value).startswith('DATABASES["other"]: ')
    assert named in str(caught.value)


def test_checks_and_lakebase_check_list_ignored_variables(
    new_wrapper, local, monkeypatch, capsys
):
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGPASSWORD", "left over")
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()
    default: Any = connections["default"]
    [settings, *_] = Diagnosis(default).run()

    for text in (printed.err + printed.out, settings.detail):
        assert "the environment sets PGHOSTADDR, PGPASSWORD" in text
        assert "left over" not in text
        assert "PGCLIENTENCODING" not in text
    assert "lakebase.W008" in printed.err + printed.out
    assert settings.status is Status.WARN


@pytest.mark.parametrize(
    ("style", "is_named"), [("SQL, DMY", True), ("German", True), ("ISO, DMY", False)]
)
def test_pgdatestyle_that_breaks_timestamps_is_a_warning(
    local, monkeypatch, capsys, style, is_named
):
    """W009: libpq sends it, and no parameter overrides it."""
    monkeypatch.setenv("PGDATESTYLE", style)

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()

    default: Any = connections["default"]
    [settings, *_] = Diagnosis(default).run()

    assert ("lakebase.W009" in printed.err + printed.out) is is_named
    assert (f'PGDATESTYLE is "{style}"' in settings.detail) is is_named
    assert (settings.status is Status.WARN) is is_named


def test_pgservice_is_an_error_of_the_system_checks(local, monkeypatch):
    """E015, with the text of the first connection."""
    monkeypatch.setenv("PGSERVICE", "other")

    with pytest.raises(SystemCheckError, match=r"lakebase\.E015.*PGSERVICE"):
        call_command("check")


def test_pghostaddr_of_the_emulator_has_no_warning(local, monkeypatch, capsys):
    """The emulator sets it for psql, to the address that the engine uses, too."""
    monkeypatch.setenv("PGHOSTADDR", local.env["LAKEBASE_HOSTADDR"])

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()

    assert "lakebase.W008" not in printed.err + printed.out
