"""
A TLS handshake with a PostgreSQL server, without a login.

libpq makes the handshake with the parameters of a connection, because it may trust
other certificate authorities than Python does. The connection is closed after the
handshake, before libpq sends user and password. Python then makes a second, unverified
handshake, only to read the TLS version, which psycopg does not report.
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, make_conninfo

from django_lakebase.config.libpq import keywords
from django_lakebase.config.resolve import VERIFYING_SSLMODES
from django_lakebase.config.target import Target

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """The result of a handshake: a version such as TLSv1.3, and what was verified."""

    version: str
    sslmode: str
    has_authority: bool

    @property
    def verified(self) -> str:
        """What libpq has verified, as text."""
        if self.sslmode == "verify-full":
            return "host verified"
        if self.sslmode in VERIFYING_SSLMODES or self.has_authority:
            return "certificate verified, host not verified"
        return "certificate not verified"


def perform_handshake(
    target: Target, params: Mapping[str, Any], timeout: float
) -> Handshake:
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
    address = target.hostaddr or str(params["host"]), int(target.port or 5432)
    return Handshake(
        version=_version(address, str(params["host"]), timeout),
        sslmode=target.sslmode,
        has_authority=bool(target.sslrootcert),
    )


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


def _version(address: tuple[str, int], host: str, timeout: float) -> str:
    """Return the TLS version of an unverified handshake, or "TLS" if it fails."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=max(1.0, timeout)) as plain,
    ):
        plain.sendall(SSL_REQUEST)
        if plain.recv(1) == b"S":
            with context.wrap_socket(plain, server_hostname=host) as secure:
                return secure.version() or "TLS"
    return "TLS"
