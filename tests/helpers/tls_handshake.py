"""A TLS handshake with a server on this machine."""

from django_lakebase.config import libpq
from django_lakebase.config.target import Target
from django_lakebase.diagnosis.tls import perform_handshake


def shake_hands_with(host, port, **own):
    """Return the handshake with *host* at *port* on this machine."""
    target = Target(
        **{
            "alias": "a",
            "label": "a",
            "login": None,
            "hostaddr": "127.0.0.1",
            "host": host,
            "port": str(port),
            "user": "u",
            **own,
        }
    )
    return perform_handshake(target, libpq.connection_params(target, {}, ""), 5)
