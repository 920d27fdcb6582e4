"""What the environment and HOME hold for other programs: the engine is not misled."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections

from django_lakebase import libpq
from django_lakebase.connection import LakebaseError
from django_lakebase.diagnosis import Diagnosis, Status
from django_lakebase.local.gateway import wire
from tests.support import one

TOP = Path(__file__).parents[2]
ELSEWHERE = "127.0.0.2"


class Decoy:
    """A listener at another address: it shakes hands, and takes what a client sends."""

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
    """Listen at the gateway's port of another address, with TLS or without."""
    context = None
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("elsewhere.example").configure_cert(context)
    listener = Decoy(local.facts["port"], context)
    yield listener
    listener.close()


@pytest.fixture
def service_file(local, tmp_path):
    """Give a service file that leads a client elsewhere, without TLS."""
    file = tmp_path / "pg_service.conf"
    file.write_text(
        f"[other]\nhostaddr={ELSEWHERE}\nport={local.facts['port']}\nsslmode=disable\n"
    )
    return file


def dbshell(environment):
    """Run ``manage.py dbshell`` for one statement."""
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
def test_pghostaddr_sends_the_token_nowhere_else(
    new_wrapper, local, decoy, monkeypatch, options
):
    """With sslmode=require any certificate would do, so that the address decides."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.delenv("PGSSLROOTCERT")
    wrapper = new_wrapper(OPTIONS={**options, "hostaddr": local.facts["hostaddr"]})

    assert one(wrapper, "SELECT 1") == 1
    assert [step.status for step in Diagnosis(wrapper).run()].count(Status.FAIL) == 0
    assert decoy.received == []


@ways
def test_pghostaddr_does_not_replace_a_name(
    new_wrapper, local, decoy, monkeypatch, options
):
    """Without an address of its own the alias looks its host up."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    for name in ("LAKEBASE_HOSTADDR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name)
    wrapper = new_wrapper(OPTIONS={"connect_budget": 2, **options})

    with pytest.raises(LakebaseError) as caught:
        one(wrapper, "SELECT 1")

    assert caught.value.failure_id in ("wrong-host", "waking")
    assert "resolve host" in str(caught.value)
    assert decoy.received == []


def test_params_for_other_libraries_hold_an_address_too(
    new_wrapper, decoy, monkeypatch
):
    """They may take the parameters once, and connect in the same environment."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGSSLMODE", "require")
    for name in ("LAKEBASE_HOSTADDR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name)

    with pytest.raises(psycopg.OperationalError, match="resolve host"):
        psycopg.connect(**new_wrapper().get_connection_params())
    assert decoy.received == []


@needs_psql
@pytest.mark.parametrize("has_address", [True, False])
def test_dbshell_ignores_pghostaddr(local, decoy, has_address):
    """The alias's address, or its host name, decides in psql too."""
    own = {} if has_address else {"LAKEBASE_HOSTADDR": "", "PGSSLROOTCERT": ""}
    found = dbshell({"PGHOSTADDR": ELSEWHERE, "PGSSLMODE": "require", **own})

    assert found.stdout == ("1\n" if has_address else "")
    assert decoy.received == []


@needs_psql
def test_dbshell_refuses_pgservice(local, decoy, service_file):
    """A service file could switch TLS off and name another address."""
    found = dbshell({"PGSERVICE": "other", "PGSERVICEFILE": str(service_file)})

    assert found.returncode == 1
    assert 'PGSERVICE is "other"' in found.stderr
    assert "Traceback" not in found.stderr
    assert decoy.received == []


def test_pgservice_is_refused_by_name(
    new_wrapper, local, decoy, service_file, monkeypatch
):
    """Libpq has no way to be told to ignore it."""
    monkeypatch.setenv("PGSERVICE", "other")
    monkeypatch.setenv("PGSERVICEFILE", str(service_file))

    with pytest.raises(ImproperlyConfigured, match='PGSERVICE is "other"') as caught:
        one(new_wrapper(), "SELECT 1")

    assert caught.value.failure_id == "libpq-variable"
    assert decoy.received == []


def test_service_of_the_settings_is_used_and_keeps_its_address(
    new_wrapper, local, tmp_path, monkeypatch
):
    """It names a host on purpose; variables that psycopg would prefer are refused."""
    facts, file = local.facts, tmp_path / "pg_service.conf"
    file.write_text(
        f"[shop]\nhost={facts['host']}\nhostaddr={facts['hostaddr']}\n"
        f"port={facts['port']}\ndbname={facts['database']}\n"
        f"user={facts['native_user']}\npassword={facts['native_password']}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.delenv("PGHOST")
    wrapper = new_wrapper(OPTIONS={"service": "shop", "sslmode": "require"})

    assert one(wrapper, "SELECT 1") == 1
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
def test_variable_that_can_only_break_a_login_is_named_at_once(
    new_wrapper, local, monkeypatch, name, value
):
    """No request is made; following the hint leads to a connection."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured, match=f'{name} is "{value}"') as caught:
        one(new_wrapper(), "SELECT 1")
    assert local.counters()["requests"] == {}

    assert f"Remove {name}" in caught.value.mend
    monkeypatch.delenv(name)
    assert one(new_wrapper(), "SELECT 1") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGREQUIREAUTH", "password,scram-sha-256"), ("PGCHANNELBINDING", "prefer")],
)
def test_variable_that_allows_tokens_is_left_alone(
    new_wrapper, monkeypatch, name, value
):
    """It is libpq's own."""
    monkeypatch.setenv(name, value)

    assert one(new_wrapper(), "SELECT 1") == 1


def test_native_login_keeps_its_authentication_variables(
    new_wrapper, local, monkeypatch
):
    """A password of its own can be sent by SCRAM."""
    facts = local.facts
    monkeypatch.setenv("PGREQUIREAUTH", "scram-sha-256")
    wrapper = new_wrapper(
        HOST=facts["host"],
        USER=facts["native_user"],
        PASSWORD=facts["native_password"],
        OPTIONS={"hostaddr": facts["hostaddr"]},
    )

    assert one(wrapper, "SELECT 1") == 1


def test_unreadable_home_does_not_matter(
    new_wrapper, local, unreadable_home, monkeypatch
):
    """As supervisord and ``su`` leave it; libpq looks for client certificates there."""
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.delenv("PGSSLROOTCERT")

    wrapper = new_wrapper()

    assert one(wrapper, "SELECT 1") == 1
    assert {s.status for s in Diagnosis(wrapper).run()} == {Status.OK}


def test_stray_certificates_below_home_do_not_matter(
    new_wrapper, local, tmp_path, monkeypatch
):
    """A root.crt of another authority would turn require into a check against it."""
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

    assert one(wrapper, "SELECT 1") == 1
    assert {s.status for s in Diagnosis(wrapper).run()} == {Status.OK}


@pytest.mark.parametrize("options", [{"sslrootcert": "system"}, {}])
def test_system_means_a_bundle_that_exists(
    new_wrapper, local, monkeypatch, options, tmp_path
):
    """SSL_CERT_FILE comes first; here it holds the local authority."""
    monkeypatch.setenv("SSL_CERT_FILE", local.facts["ca_file"])
    monkeypatch.delenv("PGSSLROOTCERT")
    wrapper = new_wrapper(OPTIONS={"sslmode": "verify-full", **options})

    assert one(wrapper, "SELECT 1") == 1
    [tls] = [step for step in Diagnosis(wrapper).run() if step.id == "tls"]
    assert "host verified" in tls.detail


def test_system_falls_back_to_a_bundle_of_the_machine(monkeypatch):
    """Where no variable names one, and where the variable's file is missing."""
    for value in ("", "/nowhere/cert.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", value)
        assert Path(libpq._system_bundle(value)).is_file()


def test_system_falls_back_to_certifi(monkeypatch):
    """On a machine without a bundle in the usual places."""
    monkeypatch.setattr(libpq, "BUNDLES", ())

    assert Path(libpq._system_bundle("")).name == "cacert.pem"


def test_client_certificate_of_the_settings_is_sent(new_wrapper):
    """What the project asks for is not switched off."""
    params = new_wrapper(OPTIONS={"sslcert": "/own.crt"}).get_connection_params()

    assert params["sslcert"] == "/own.crt"
    assert params["sslcertmode"] == "allow"


def test_old_libpq_gets_no_parameter_that_it_does_not_know(monkeypatch):
    """Version 15 has no sslcertmode; a certificate that does not exist serves."""
    new = {"sslcertmode", "sslnegotiation", "load_balance_hosts"}
    old = libpq.keywords() - new
    monkeypatch.setattr(libpq, "keywords", lambda: old)
    libpq._overrides.cache_clear()

    params = libpq.overrides({})
    libpq._overrides.cache_clear()

    assert not new & set(params)
    assert params["sslcert"] == libpq.NO_FILE


def test_every_variable_of_libpq_has_a_line():
    """A new libpq brings new ones: they are looked at before they are ignored."""
    named = {variable.name for variable in libpq.VARIABLES}
    defaults = psycopg.pq.Conninfo.get_defaults()

    assert {o.envvar.decode() for o in defaults if o.envvar} <= named


def test_pgoptions_is_not_read_for_a_database_of_the_settings(
    new_wrapper, local, monkeypatch
):
    """They are another database's."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")
    facts = local.facts
    own = new_wrapper(OPTIONS={"endpoint": facts["endpoint"], "hostaddr": "127.0.0.1"})
    named = new_wrapper(HOST=facts["host"], OPTIONS={"hostaddr": facts["hostaddr"]})

    assert one(own, "SHOW work_mem") == "4MB"
    assert one(named, "SHOW work_mem") == "5MB"


def test_quoted_pgoptions_that_are_read_are_no_finding(new_wrapper, monkeypatch):
    """The quotes are cut before they are compared, too."""
    monkeypatch.setenv("PGOPTIONS", '"-c work_mem=5MB"')
    params = new_wrapper().get_connection_params()

    assert libpq.warning(params, os.environ) == ("", "")


@pytest.mark.parametrize(("text", "bound"), [("7", 7), ("0", None), ("", None)])
def test_pgconnect_timeout_bounds_an_attempt(new_wrapper, monkeypatch, text, bound):
    """As libpq reads it: 0 is no bound."""
    monkeypatch.setenv("PGCONNECT_TIMEOUT", text)
    wrapper = new_wrapper()

    assert (wrapper.get_target().connect_timeout or None) == bound
    assert one(wrapper, "SELECT 1") == 1


def test_pgconnect_timeout_that_is_no_number_is_named(new_wrapper, monkeypatch):
    """Before anything connects."""
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "soon")

    with pytest.raises(ImproperlyConfigured, match='PGCONNECT_TIMEOUT is "soon"'):
        one(new_wrapper(), "SELECT 1")


def test_none_in_the_settings_counts_as_empty(new_wrapper, local):
    """``os.environ.get("DBNAME")`` gives None for a variable that is not set."""
    keys = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
    options = dict.fromkeys(("sslmode", "connect_budget", "pool", "isolation_level"))
    wrapper = new_wrapper(**dict.fromkeys(keys), OPTIONS=options)

    assert one(wrapper, "SELECT current_database()") == local.facts["database"]


def test_options_may_be_none(new_wrapper):
    """The same for all of OPTIONS."""
    assert one(new_wrapper(OPTIONS=None), "SELECT 1") == 1


def test_text_from_the_environment_is_converted(new_wrapper):
    """CONN_MAX_AGE and switches are text there; "False" would be true."""
    wrapper = new_wrapper(
        CONN_MAX_AGE="600",
        CONN_HEALTH_CHECKS="False",
        PORT=int(os.environ["PGPORT"]),
        OPTIONS={"pool": "off", "reconnect": "No", "prepare_threshold": "5"},
    )

    assert one(wrapper, "SELECT 1") == 1
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
def test_text_without_a_clear_meaning_is_named(
    new_wrapper, local, settings, named, password
):
    """Never a TypeError without the alias, for a native login either."""
    if password:
        facts = local.facts
        own = {"HOST": facts["host"], "USER": facts["native_user"]}
        settings = {**settings, **own, "PASSWORD": password}

    with pytest.raises(ImproperlyConfigured) as caught:
        one(new_wrapper(**settings), "SELECT 1")

    assert str(caught.value).startswith('DATABASES["other"]: ')
    assert named in str(caught.value)


def test_checks_and_lakebase_check_name_what_is_ignored(
    new_wrapper, local, monkeypatch, capsys
):
    """So that nobody wonders why a variable has no effect."""
    monkeypatch.setenv("PGHOSTADDR", ELSEWHERE)
    monkeypatch.setenv("PGPASSWORD", "left over")
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()
    [settings, *_] = Diagnosis(connections["default"]).run()

    for text in (printed.err + printed.out, settings.detail):
        assert "PGHOSTADDR, PGPASSWORD set in the environment" in text
        assert "left over" not in text
        assert "PGCLIENTENCODING" not in text
    assert "lakebase.W008" in printed.err + printed.out
    assert settings.status is Status.WARN


@pytest.mark.parametrize(
    ("style", "is_named"), [("SQL, DMY", True), ("German", True), ("ISO, DMY", False)]
)
def test_date_style_that_breaks_timestamps_is_named(
    local, monkeypatch, capsys, style, is_named
):
    """W009: libpq sends it, and no parameter overrides it."""
    monkeypatch.setenv("PGDATESTYLE", style)

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()

    [settings, *_] = Diagnosis(connections["default"]).run()

    assert ("lakebase.W009" in printed.err + printed.out) is is_named
    assert (f'PGDATESTYLE is "{style}"' in settings.detail) is is_named
    assert (settings.status is Status.WARN) is is_named


def test_pgservice_stops_the_checks(local, monkeypatch):
    """E015, with the words that the first connection would say."""
    monkeypatch.setenv("PGSERVICE", "other")

    with pytest.raises(SystemCheckError, match=r"lakebase\.E015.*PGSERVICE"):
        call_command("check")


def test_libpq_option_of_the_local_lakebase_is_no_finding(local, monkeypatch, capsys):
    """It sets PGHOSTADDR for psql, to the address that the engine uses too."""
    monkeypatch.setenv("PGHOSTADDR", local.env["LAKEBASE_HOSTADDR"])

    call_command("check", "--fail-level", "ERROR")
    printed = capsys.readouterr()

    assert "lakebase.W008" not in printed.err + printed.out
