"""
A TLS handshake with a PostgreSQL server, as libpq does it, without a login.

psycopg does not say which TLS version a connection uses, and a failed login says
nothing about TLS at all: ``lakebase_check`` looks at it apart.
"""

import contextlib
import socket
import ssl
from dataclasses import dataclass

from .config import Target

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
VERIFYING = ("verify-ca", "verify-full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a handshake told: the version, such as TLSv1.3, and what was verified."""

    version: str
    sslmode: str

    @property
    def is_verified(self) -> bool:
        """Whether the server's certificate was verified."""
        return self.sslmode in VERIFYING


def shake_hands(target: Target, host: str, timeout: float) -> Handshake:
    """Shake hands with *host* within *timeout* seconds; raises OSError."""
    address = target.hostaddr or host, int(target.port)
    try:
        plain = socket.create_connection(address, timeout=max(1.0, timeout))
    except socket.gaierror as exc:
        # In libpq's words, which the table of failures knows.
        raise OSError(f"failed to resolve host '{host}': {exc}") from exc
    with contextlib.closing(plain):
        plain.sendall(SSL_REQUEST)
        answer = plain.recv(1)
        if not answer:
            raise OSError("server closed the connection unexpectedly")
        if answer != b"S":
            raise OSError("server does not support SSL, but SSL was required")
        context = _context(target)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            version = secure.version() or "unknown"
    return Handshake(version=version, sslmode=target.sslmode)


def _context(target: Target) -> ssl.SSLContext:
    own_file = target.sslrootcert not in ("", "system")
    try:
        context = ssl.create_default_context(
            cafile=target.sslrootcert if own_file else None
        )
    except OSError as exc:
        problem = f'root certificate file "{target.sslrootcert}": {exc}'
        raise OSError(problem) from exc
    context.check_hostname = target.sslmode == "verify-full"
    if target.sslmode not in VERIFYING:
        context.verify_mode = ssl.CERT_NONE
    return context
