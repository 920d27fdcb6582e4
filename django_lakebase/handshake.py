"""
TLS with a PostgreSQL server, looked at apart from a login.

libpq itself makes the handshake, with the parameters of a connection and without a
password: it may trust another certificate authority than Python does. Python's own
handshake, unverified, only tells the version of TLS, which psycopg does not.
"""

import contextlib
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from .config import VERIFYING_SSLMODES, Target
from .libpq import NO_FILE

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
# The shortest connect_timeout that libpq takes, in seconds.
SHORTEST_TIMEOUT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """The result of a handshake: a version such as TLSv1.3, and what was verified."""

    version: str
    sslmode: str
    has_authority: bool

    @property
    def verified(self) -> str:
        """What libpq has verified, in words."""
        if self.sslmode == "verify-full":
            return "host verified"
        if self.sslmode in VERIFYING_SSLMODES or self.has_authority:
            return "certificate verified, host not verified"
        return "certificate not verified"


def shake_hands(target: Target, params: Mapping[str, Any], timeout: float) -> Handshake:
    """
    Let libpq make a TLS handshake as *params* say, within *timeout* seconds.

    Raises psycopg.OperationalError where there is none. A server that answers more
    than that, and be it an error, has made one.
    """
    own = {"password": "", "passfile": NO_FILE, "connect_timeout": max(2, int(timeout))}
    try:
        psycopg.connect(**{**params, **own}).close()
    except psycopg.OperationalError as exc:
        if exc.pgconn is None or not exc.pgconn.ssl_in_use:
            raise
    address = target.hostaddr or str(params["host"]), int(target.port or 5432)
    return Handshake(
        version=_version(address, str(params["host"]), timeout),
        sslmode=target.sslmode,
        has_authority=bool(target.sslrootcert),
    )


def _version(address: tuple[str, int], host: str, timeout: float) -> str:
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
