"""
What a refused client is told: the words of the service's three layers.

A login meets the front gateway, then a proxy, then PostgreSQL with the service's own
extension; each has texts, severities and SQLSTATEs of its own. Where it is not known
which of them answers, a *dialect* decides.
"""

import time
from collections.abc import Callable
from enum import StrEnum

from .wire import Refusal

_SSL_HINT = (
    "Ensure that connection is using SSL. Try using `sslmode=require` in the "
    "connection string."
)
_CONTROL_PLANE = "Control plane request failed"


def front(text: str, code: str, detail: str = "") -> Refusal:
    """Return a refusal of the front gateway, or of PostgreSQL: both say FATAL."""
    return Refusal(text, code, "FATAL", detail)


def no_tls(code: int) -> Refusal:
    """Refuse a client that starts without TLS."""
    text = f"Invalid protocol version. Protocol version: {code}"
    return front(text, "08P01", _SSL_HINT)


def early_bytes() -> Refusal:
    """Refuse bytes that came with the request for TLS."""
    return front(
        "Received unencrypted data after SSL request.",
        "08P01",
        "This could be either a client-software bug or evidence of an attempted "
        "man-in-the-middle attack.",
    )


def no_sni() -> Refusal:
    """Refuse a TLS handshake that names no host."""
    detail = "Please upgrade your client to support SNI."
    return front("Connection does not have SNI.", "08006", detail)


def too_slow() -> Refusal:
    """Refuse a client that takes too long."""
    return front("Client handshake timeout.", "08006")


def not_authorized(because: str = "") -> Refusal:
    """Refuse as the external authorization does; *because* is its newer detail."""
    detail = because or (
        "This could be due to paused instances, disabling readable secondaries, IP "
        "ACLs or private link configuration."
    )
    return front("External authorization failed.", "28000", detail)


def ip_blocked(workspace_id: str) -> str:
    """Say that an address is not on the list, as API and gateway do."""
    return (
        "Source IP address: 127.0.0.1 is blocked by Databricks IP ACL for workspace: "
        f"{workspace_id}"
    )


def no_endpoint() -> Refusal:
    """Refuse a host that is no endpoint's."""
    return Refusal(f"{_CONTROL_PLANE}: endpoint cannot be found")


def disabled() -> Refusal:
    """Refuse a disabled endpoint."""
    return Refusal(f"{_CONTROL_PLANE}: endpoint is disabled")


def starting() -> Refusal:
    """Refuse while PostgreSQL starts."""
    return front("the database system is starting up", "57P03")


def too_many() -> Refusal:
    """Refuse one connection too many."""
    text = "remaining connection slots are reserved for roles with the SUPERUSER"
    return front(f"{text} attribute", "53300")


def pooled() -> Refusal:
    """Refuse a token at a pooled host."""
    return front("SASL authentication failed", "08P01")


def _no_role(user: str) -> Refusal:
    return front(f'role "{user}" does not exist', "28000")


def _no_label(user: str) -> Refusal:
    return front(
        "An oauth token was supplied but no role security label was configured in "
        f'postgres for role "{user}"',
        "28P01",
    )


def _not_decoded(user: str) -> Refusal:
    return front(
        f'Failed to decode token for role "{user}" and native postgres login was '
        "either not attempted due to configuration or failed.",
        "28P01",
    )


def _wrong_password(user: str) -> Refusal:
    return Refusal(f"password authentication failed for user '{user}'")


class Dialect(StrEnum):
    """Who answers where nobody could confirm it: a mixture, or one layer for all."""

    LIKELY = "likely"
    PROXY = "proxy"
    POSTGRES = "postgres"

    def bad_token(self, user: str, text: str) -> Refusal:
        """Refuse a token that cannot be read, or has expired; *text* is the proxy's."""
        return _not_decoded(user) if self is Dialect.POSTGRES else Refusal(text)

    def no_role(self, user: str) -> Refusal:
        """Refuse the identity of no role."""
        return _wrong_password(user) if self is Dialect.PROXY else _no_role(user)

    def wrong_identity(self, user: str) -> Refusal:
        """Refuse a token of somebody else, or for a role that takes none."""
        return _wrong_password(user) if self is Dialect.PROXY else _no_label(user)


# What the API says to a token that it no longer accepts.
DEAD_TOKEN = {"invalid": "Invalid access token.", "expired": "JWT has expired"}
NOT_A_JWT = "Provided authentication token is not a valid JWT encoding"
VOICES: dict[str, Callable[[str], Refusal]] = {
    "jwt": lambda _: Refusal(NOT_A_JWT),
    "expired": lambda _: Refusal(f"JWT token has expired (exp={int(time.time()) - 1})"),
    "not-yet": lambda _: Refusal(
        f"JWT token is not yet ready to use (nbf={int(time.time()) + 60})"
    ),
    "audience": lambda _: Refusal("invalid JWT token audience"),
    "signature": lambda _: Refusal("signature error: signature mismatch"),
    "key": lambda _: Refusal("jwk not found"),
    "password": _wrong_password,
    "label": _no_label,
    "decode": _not_decoded,
    "role": _no_role,
    "sasl": lambda _: pooled(),
    "authorization": lambda _: not_authorized(),
    "starting": lambda _: starting(),
    "disabled": lambda _: disabled(),
    "control-plane": lambda _: Refusal(_CONTROL_PLANE),
    "quota": lambda _: Refusal(
        f"{_CONTROL_PLANE}: endpoint is temporarily unavailable. Check your quotas "
        "and/or contact our support."
    ),
    "permit": lambda _: Refusal(
        "Failed to acquire permit to connect to the database. Too many database "
        "connection attempts are currently ongoing."
    ),
    "attempts": lambda _: Refusal("Too many connections attempts"),
    "compute": lambda _: Refusal("Couldn't connect to compute node"),
    "endpoint-full": lambda _: Refusal(
        "Too many connections to this endpoint. Please try again later."
    ),
    "slow": lambda _: Refusal("Authentication timed out"),
    "handshake": lambda _: front("Invalid upstream handshake state.", "XX000"),
    "address": lambda _: Refusal(
        "This IP address 127.0.0.1 is not allowed to connect to this endpoint. If "
        "you think this is an error, please contact your administrator."
    ),
    "too-many": lambda _: front("sorry, too many clients already", "53300"),
    "shutdown": lambda _: front("the database system is shutting down", "57P03"),
    "nologin": lambda user: front(f'role "{user}" is not permitted to log in', "28000"),
    "database": lambda _: front('database "nowhere" does not exist', "3D000"),
    "german": lambda _: front("das Datenbanksystem startet", "57P03"),
    "unknown": lambda _: Refusal("the weather is bad"),
}
