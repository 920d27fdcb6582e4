"""
A TLS handshake with a PostgreSQL server, without a login.

libpq makes the handshake with the parameters of a connection, because it may trust
other certificate authorities than Python does. The connection is closed after the
handshake, before libpq sends user and password. Python then makes a second, unverified
handshake, for what psycopg does not report: the TLS version, and whether the server
supports direct TLS.
"""

import selectors
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, make_conninfo

from django_lakebase.config.libpq import NO_FILE, keywords
from django_lakebase.config.resolve import VERIFYING_SSLMODES
from django_lakebase.config.target import Target
from django_lakebase.connect.tls import probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """
    The result of a handshake: a version such as TLSv1.3, and what was verified.

    *is_direct* is whether the server also supports direct TLS, or None if unknown.
    """

    version: str
    is_direct: bool | None
    sslmode: str
    has_authority: bool

    @property
    def is_verified(self) -> bool:
        """Whether libpq has verified the certificate's authority."""
        return self.sslmode in VERIFYING_SSLMODES or self.has_authority

    @property
    def verified(self) -> str:
        """What libpq has verified, as text."""
        if self.sslmode == "verify-full":
            return "host verified"
        if self.is_verified:
            return "certificate verified, host not verified"
        return "certificate not verified"


def perform_handshake(
    target: Target, params: Mapping[str, Any], timeout: float
) -> Handshake:
    """
    Make a TLS handshake with libpq and *params*, and one that shows its details.

    That of libpq may take *timeout* seconds. Raises psycopg.OperationalError if it
    fails.
    """
    check_handshake(params, timeout)
    address = target.hostaddr or str(params["host"]), int(target.port or 5432)
    found = probe(address, str(params["host"]))
    return Handshake(
        version=found.version if found else "TLS",
        is_direct=found.is_direct if found else None,
        sslmode=str(params["sslmode"]),
        has_authority=str(params.get("sslrootcert", NO_FILE)) != NO_FILE,
    )


def check_handshake(params: Mapping[str, Any], timeout: float) -> None:
    """
    Make a TLS handshake with libpq and *params*, within *timeout* seconds.

    Raises psycopg.OperationalError if it fails.
    """
    deadline = time.monotonic() + timeout
    libpq_params = {
        keyword: value
        for keyword, value in params.items()
        if keyword in keywords() and keyword != "password"
    }
    attempts = conninfo_attempts(libpq_params)
    for attempt in attempts:
        try:
            _handshake(make_conninfo("", **attempt), deadline)
            break
        except psycopg.OperationalError:
            if attempt is attempts[-1]:
                raise


def _handshake(conninfo: str, deadline: float) -> None:
    """Connect with libpq until TLS is established, then close the connection."""
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        while not _is_secure(connection):
            polled = connection.connect_poll()
            if polled == pq.PollingStatus.FAILED:
                text = connection.error_message.decode(errors="replace")
                raise psycopg.OperationalError(f"connection failed: {text.strip()}")
            must_read = polled == pq.PollingStatus.READING
            event = selectors.EVENT_READ if must_read else selectors.EVENT_WRITE
            with selectors.DefaultSelector() as selector:
                selector.register(connection.socket, event)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise psycopg.OperationalError("connection timeout expired")
    finally:
        connection.finish()


def _is_secure(connection: pq.abc.PGconn) -> bool:
    # libpq reports TLS as in use from the start of the handshake.
    states = (pq.ConnStatus.SSL_STARTUP, pq.ConnStatus.BAD)
    return connection.ssl_in_use and connection.status not in states
