"""
Shortcuts for TLS: one round trip less, and one root certificate instead of 140.

How it works. Before libpq starts TLS, it asks the server whether it supports TLS, which
takes a round trip. With ``sslnegotiation=direct`` it does not ask, but older servers
and proxies reject that. To verify a certificate against the public authorities, libpq
loads all of them for each connection, which takes 7 ms and 0.7 MB. Therefore, when a
process connects to a server for the second time, a background thread makes one
handshake with Python's ssl, without a login. It finds out whether the server supports
direct TLS, and which root certificate the server's chain ends in. Later connections use
what it has found.

An attempt that uses a shortcut and fails before the server has sent a message is
repeated at once without it, whatever the error. If that works, the shortcut is not used
again. A shortcut can therefore delay one connection by `DIRECT_TIMEOUT`, but never make
it fail. While connections take longer than that, direct TLS is not used.

Invariants. `process.lock` guards changes to a `Server`; no handshake is made under it.
A root certificate is stored in memory (memfd, only on Linux), so no file is left
behind. The thread of a parent does not run in a forked child, which starts another.
"""

import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import NamedTuple, TypeAlias

from django_lakebase import events, process
from django_lakebase.config import libpq
from django_lakebase.config.target import PUBLIC_AUTHORITIES, Target

from .params import Params

# In seconds: for an attempt with direct TLS, and for each step of a handshake in the
# background.
DIRECT_TIMEOUT = libpq.MIN_CONNECT_TIMEOUT
PROBE_TIMEOUT = 3.0

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest.
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
# https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
ALPN_PROTOCOL = "postgresql"

# Part of OpenSSL's message, which is never translated.
_NOT_VERIFIED = "certificate verify failed"


class ProbeResult(NamedTuple):
    """
    What a handshake has shown about a server.

    *version* is the TLS version, such as ``TLSv1.3``. *root* is the root certificate
    (DER) of a verified chain.
    """

    version: str
    is_direct: bool
    root: bytes | None = None


def probe(
    address: tuple[str, int],
    host: str,
    *,
    direct: bool = True,
    ca_file: str = "",
) -> ProbeResult | None:
    """
    Make a TLS handshake with the server *host* at *address*, without a login.

    With *direct*, tries direct TLS first. Verifies the certificate against *ca_file* if
    there is one, but not that it is for *host*. Each step of the one or two handshakes
    may take `PROBE_TIMEOUT` seconds. Returns None if there was none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca_file else ssl.CERT_NONE
    context.set_alpn_protocols([ALPN_PROTOCOL])
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError:
            return None
    for is_direct in (True, False) if direct else (False,):
        # A server may reject direct TLS in any way, and may also never answer.
        with contextlib.suppress(OSError, ValueError):
            with socket.create_connection(address, PROBE_TIMEOUT) as plain:
                handshake = _handshake(plain, host, context, is_direct=is_direct)
            if handshake is not None:
                return handshake
    return None


def _handshake(
    plain: socket.socket, host: str, context: ssl.SSLContext, *, is_direct: bool
) -> ProbeResult | None:
    if not is_direct:
        plain.sendall(SSL_REQUEST)
        if plain.recv(1) != b"S":
            return None
    with context.wrap_socket(plain, server_hostname=host) as secure:
        # A proxy that only forwards the bytes inside TLS agrees on no protocol.
        if is_direct and secure.selected_alpn_protocol() != ALPN_PROTOCOL:
            return None
        return ProbeResult(
            version=secure.version() or "TLS",
            is_direct=is_direct,
            root=_root(secure) if context.verify_mode == ssl.CERT_REQUIRED else None,
        )


def _root(secure: ssl.SSLSocket) -> bytes | None:
    """Return the root certificate (DER) of the chain that OpenSSL has verified."""
    if hasattr(secure, "get_verified_chain"):  # Python 3.13.
        chain = secure.get_verified_chain()
        return bytes(chain[-1]) if chain else None
    with contextlib.suppress(AttributeError, ImportError):
        from _ssl import ENCODING_DER

        chain = secure._sslobj.get_verified_chain()  # type: ignore[attr-defined] # noqa: SLF001 - public only in 3.13.
        return bytes(chain[-1].public_bytes(ENCODING_DER)) if chain else None
    return None


# A stored root certificate: its descriptor, and what identifies the file.
StoredRoot: TypeAlias = tuple[int, os.stat_result]
_stored_roots: dict[bytes, StoredRoot] = {}


def certificate_path(root: bytes) -> str:
    """
    Return the path of a file in memory with the certificate *root* (DER).

    Returns an empty string if there is none: on systems other than Linux, or because
    the system does not allow it (``vm.memfd_noexec``, seccomp).
    """
    with contextlib.suppress(OSError, AttributeError), process.lock:
        stored = _stored_roots.get(root)
        if stored is None or not _is_open(stored):
            stored = _stored_roots[root] = _store(root)
        path = f"/proc/self/fd/{stored[0]}"
        return path if os.access(path, os.R_OK) else ""
    return ""


def _store(root: bytes) -> StoredRoot:
    descriptor = os.memfd_create("lakebase-root")
    os.write(descriptor, ssl.DER_cert_to_PEM_cert(root).encode())
    return descriptor, os.fstat(descriptor)


def _is_open(stored: StoredRoot) -> bool:
    """
    Return whether the descriptor of *stored* is still that of its file.

    A process that becomes a daemon closes all descriptors. The next file with the
    number may contain other certificates, or be a pipe, which libpq would read from.
    """
    descriptor, status = stored
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), status)
    return False


class Server:
    """A server, and what this process has learned about its TLS."""

    def __init__(self, target: Target, host: str) -> None:
        self._host, self._port = host, target.port
        self._address = target.hostaddr or host
        # libpq also takes lists, and a service file may name the server.
        is_single = bool(host and self._port) and "," not in self._address + self._port
        is_public = is_single and target.sslrootcert == PUBLIC_AUTHORITIES
        self._ca_file = libpq.certificate_file(target) if is_public else ""
        is_auto = is_single and target.sslnegotiation == "auto"
        self._may_be_direct = is_auto and libpq.has_direct_tls()
        self._was_reached = self._is_probed = self._is_slow = False
        self._handshake: ProbeResult | None = None
        self._rejected_roots: set[bytes] = set()

    def shortcuts(self) -> Params:
        """
        Return the parameters of libpq that use what was learned.

        Starts the probe if the process connects to the server for the second time.
        """
        found, params = self._handshake, Params()
        if self._was_reached and not self._is_probed:
            self._start_probe()
        if found is None:
            return params
        if found.is_direct and self._may_be_direct and not self._is_slow:
            params |= {"sslnegotiation": "direct", "connect_timeout": DIRECT_TIMEOUT}
        if found.root is not None and found.root not in self._rejected_roots:
            path = certificate_path(found.root)
            params |= {"sslrootcert": path} if path else {}
        return params

    def reject(self, shortcuts: Params, error: object) -> None:
        """Stop using one of *shortcuts*, with which an attempt failed with *error*."""
        found, path = self._handshake, shortcuts.get("sslrootcert")
        is_direct = "sslnegotiation" in shortcuts and not (
            path and _NOT_VERIFIED in str(error)
        )
        if is_direct:
            self._may_be_direct = False
        elif found and found.root and certificate_path(found.root) == path:
            # The server's authority has changed: learn the new one.
            with process.lock:
                self._rejected_roots.add(found.root)
                self._handshake, self._is_probed = None, False
        else:
            # Another thread has rejected it.
            return
        rejected = "direct TLS" if is_direct else "the root certificate"
        events.tls_shortcut_rejected(self._host, rejected, error)

    def pause_direct(self) -> None:
        """
        Use no direct TLS until a connection is opened within its time limit.

        While an endpoint wakes, each attempt with it would time out.
        """
        self._is_slow = True

    def record_success(self, seconds: float) -> None:
        """Record that a connection was opened in *seconds*; the next one may probe."""
        self._was_reached, self._is_slow = True, seconds >= DIRECT_TIMEOUT

    def forget_running_probe(self) -> None:
        """Let a forked child start another probe; its parent's does not run there."""
        self._is_probed = self._handshake is not None

    def _start_probe(self) -> None:
        with process.lock:
            if self._is_probed:
                return
            self._is_probed = True
        if not (self._may_be_direct or self._ca_file):
            return
        thread = threading.Thread(target=self._probe, name="lakebase-tls", daemon=True)
        # Raises RuntimeError while the interpreter shuts down.
        with contextlib.suppress(RuntimeError):
            thread.start()

    def _probe(self) -> None:
        self._handshake = found = probe(
            (self._address, int(self._port)),
            self._host,
            direct=self._may_be_direct,
            ca_file=self._ca_file,
        )
        if self._may_be_direct and found is not None:
            events.direct_tls_probed(self._host, is_supported=found.is_direct)


_servers: dict[tuple[str | float, ...], Server] = {}


@process.run_in_child
def _forget_running_probes() -> None:
    for server in _servers.values():
        server.forget_running_probe()


def server_of(target: Target, host: str) -> Server:
    """
    Return this process's only `Server` for *target* at *host*.

    If the file of the public authorities changes, what was learned from it no longer
    counts: a root may have been removed.
    """
    ca_file, ca_file_modified_at = libpq.certificate_file(target), 0.0
    if target.sslrootcert == PUBLIC_AUTHORITIES:
        with contextlib.suppress(OSError):
            ca_file_modified_at = Path(ca_file).stat().st_mtime
    key = (
        host,
        target.hostaddr,
        target.port,
        target.sslmode,
        ca_file,
        ca_file_modified_at,
        target.sslnegotiation,
    )
    server = _servers.get(key)
    return server or _servers.setdefault(key, Server(target, host))


def reset() -> None:
    """Forget all servers; for tests."""
    _servers.clear()
