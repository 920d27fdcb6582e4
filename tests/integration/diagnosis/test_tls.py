"""TLS apart from a login: what libpq makes of a server that answers."""

import psycopg
import pytest

from tests.helpers.tls import shake


def test_a_name_that_does_not_resolve():
    """In psycopg's words."""
    with pytest.raises(psycopg.OperationalError, match="failed to resolve host"):
        shake("ep-x.invalid", 5432, hostaddr="")


def test_a_file_of_authorities_that_is_not_there(local):
    """It is named."""
    missing = {"sslmode": "verify-full", "sslrootcert": "/none.pem"}
    with pytest.raises(
        psycopg.OperationalError, match=r'certificate file "/none\.pem"'
    ):
        shake(local.facts["host"], local.facts["port"], **missing)


def test_certificate_of_another_authority_is_refused(local):
    """The public authorities have not signed the server's certificate."""
    public = {"sslmode": "verify-full", "sslrootcert": "system"}
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        shake(local.facts["host"], local.facts["port"], **public)


@pytest.mark.parametrize(
    ("sslmode", "has_file", "verified"),
    [
        ("require", False, "certificate not verified"),
        ("require", True, "certificate verified, host not verified"),
        ("verify-ca", True, "certificate verified, host not verified"),
        ("verify-full", True, "host verified"),
    ],
)
def test_says_what_libpq_verifies(local, sslmode, has_file, verified):
    """With sslmode=require, a file of authorities decides."""
    facts = local.facts
    file = facts["ca_file"] if has_file else ""

    found = shake(facts["host"], facts["port"], sslmode=sslmode, sslrootcert=file)

    assert (found.version, found.verified) == ("TLSv1.3", verified)


def test_server_that_refuses_after_the_handshake_has_made_one(local):
    """The login says why; TLS is not the reason."""
    with local.fault("ip-blocked", where="login"):
        found = shake(local.facts["host"], local.facts["port"])

    assert found.version == "TLSv1.3"
