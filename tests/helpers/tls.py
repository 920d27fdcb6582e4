"""A TLS handshake with a server of this machine."""

from django_lakebase import libpq
from django_lakebase.config import Target
from django_lakebase.handshake import shake_hands


def shake(host, port, **own):
    """Return the handshake with *host* at *port* of this machine."""
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
    return shake_hands(target, libpq.connection_params(target, {}, ""), 5)
