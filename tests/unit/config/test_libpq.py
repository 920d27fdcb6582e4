"""Connection parameters, environment variables and certificates of libpq."""

from pathlib import Path

import psycopg

from django_lakebase import libpq


def test_system_falls_back_to_a_bundle_of_the_machine(monkeypatch):
    """Where no variable names one, and where the variable's file is missing."""
    for value in ("", "/nowhere/cert.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", value)
        assert Path(libpq.system_bundle(value)).is_file()


def test_system_falls_back_to_certifi(monkeypatch):
    """On a machine without a bundle in the usual places."""
    monkeypatch.setattr(libpq, "BUNDLES", ())

    assert Path(libpq.system_bundle("")).name == "cacert.pem"


def test_old_libpq_gets_no_parameter_that_it_does_not_know(monkeypatch):
    """Version 15 has no sslcertmode; a certificate that does not exist serves."""
    new = {"sslcertmode", "sslnegotiation", "load_balance_hosts"}
    old = libpq.keywords() - new
    monkeypatch.setattr(libpq, "keywords", lambda: old)

    params = libpq.overrides({})

    assert not new & set(params)
    assert params["sslcert"] == libpq.NO_FILE


def test_every_variable_of_libpq_has_a_line():
    """A new libpq brings new ones: they are looked at before they are ignored."""
    named = {variable.name for variable in libpq.VARIABLES}
    defaults = psycopg.pq.Conninfo.get_defaults()

    assert {o.envvar.decode() for o in defaults if o.envvar} <= named
