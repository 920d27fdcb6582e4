"""A TLS handshake with a server on this machine."""

from django_lakebase import libpq
from django_lakebase.config import Target
from django_lakebase.handshake import shake_hands


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
    return shake_hands(target, libpq.connection_params(target, {}, ""), 5)
