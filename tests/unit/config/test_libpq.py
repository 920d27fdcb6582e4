"""Connection parameters, environment variables and certificates of libpq."""

from pathlib import Path

import psycopg

from django_lakebase.config import libpq


def test_sslrootcert_system_uses_a_bundle_of_the_machine(monkeypatch):
    """If SSL_CERT_FILE is not set, or names a missing file."""
    for value in ("", "/nowhere/cert.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", value)
        assert Path(libpq.system_bundle(value)).is_file()


def test_sslrootcert_system_falls_back_to_certifi(monkeypatch):
    monkeypatch.setattr(libpq, "BUNDLES", ())

    assert Path(libpq.system_bundle("")).name == "cacert.pem"


def test_old_libpq_gets_only_parameters_that_it_knows(monkeypatch):
    """Version 15 has no sslcertmode: a missing file as sslcert has the same effect."""
    new = {"sslcertmode", "sslnegotiation", "load_balance_hosts"}
    old = libpq.keywords() - new
    monkeypatch.setattr(libpq, "keywords", lambda: old)

    params = libpq.overrides({})

    assert not new & set(params)
    assert params["sslcert"] == libpq.NO_FILE


def test_table_has_every_variable_of_libpq():
    """Variables of a new libpq must be added before they are ignored."""
    named = {variable.name for variable in libpq.VARIABLES}
    defaults = psycopg.pq.Conninfo.get_defaults()

    assert {o.envvar.decode() for o in defaults if o.envvar} <= named
