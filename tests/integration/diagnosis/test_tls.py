"""TLS handshakes without a login, and what libpq verifies in them."""

import psycopg
import pytest

from tests.helpers.tls_handshake import shake_hands_with


def test_unknown_host_raises_the_message_of_psycopg():
    with pytest.raises(psycopg.OperationalError, match="failed to resolve host"):
        shake_hands_with("ep-x.invalid", 5432, hostaddr="")


def test_missing_certificate_file_is_named(local):
    missing = {"sslmode": "verify-full", "sslrootcert": "/none.pem"}
    with pytest.raises(
        psycopg.OperationalError, match=r'certificate file "/none\.pem"'
    ):
        shake_hands_with(local.facts["host"], local.facts["port"], **missing)


def test_certificate_of_another_authority_is_rejected(local):
    """No public authority has signed the certificate of the local server."""
    public = {"sslmode": "verify-full", "sslrootcert": "system"}
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        shake_hands_with(local.facts["host"], local.facts["port"], **public)


@pytest.mark.parametrize(
    ("sslmode", "has_file", "verified"),
    [
        ("require", False, "certificate not verified"),
        ("require", True, "certificate verified, host not verified"),
        ("verify-ca", True, "certificate verified, host not verified"),
        ("verify-full", True, "host verified"),
    ],
)
def test_handshake_reports_what_libpq_verifies(local, sslmode, has_file, verified):
    """With sslmode=require, that depends on the certificate file."""
    facts = local.facts
    file = facts["ca_file"] if has_file else ""

    found = shake_hands_with(
        facts["host"], facts["port"], sslmode=sslmode, sslrootcert=file
    )

    assert (found.version, found.verified) == ("TLSv1.3", verified)


def test_handshake_succeeds_if_the_server_rejects_only_the_login(local):
    with local.fault("ip-blocked", scope="login"):
        found = shake_hands_with(local.facts["host"], local.facts["port"])

    assert found.version == "TLSv1.3"
