"""
The error messages for rejected logins, grouped by the service's three layers.

A login passes the front gateway, then a proxy, then PostgreSQL with the service's own
extension. Each layer has different texts, severities and SQLSTATEs. For cases in which
the layer that rejects the login could not be confirmed, a *dialect* selects it.
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

_SSL_HINT = (
    "Ensure that connection is using SSL. Try using `sslmode=require` in the "
    "connection string."
)
_CONTROL_PLANE = "Control plane request failed"


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """PostgreSQL's ErrorResponse message."""

    message: str
    code: str = "XX000"
    severity: str = "ERROR"
    detail: str = ""

    def encode(self) -> bytes:
        """Return the message as bytes."""
        fields = [
            ("S", self.severity),
            ("V", self.severity),
            ("C", self.code),
            ("M", self.message),
            ("D", self.detail),
        ]
        body = b"".join(
            kind.encode() + text.encode() + b"\0" for kind, text in fields if text
        )
        # The length includes its own four bytes and the terminator.
        return b"E" + struct.pack("!I", len(body) + 5) + body + b"\0"


def fatal(text: str, code: str, detail: str = "") -> ErrorResponse:
    """Return an error of the front gateway or PostgreSQL, which both send FATAL."""
    return ErrorResponse(text, code, "FATAL", detail)


def no_tls(code: int) -> ErrorResponse:
    """Return the error for a client that starts without TLS."""
    text = f"Invalid protocol version. Protocol version: {code}"
    return fatal(text, "08P01", _SSL_HINT)


def unencrypted_data() -> ErrorResponse:
    """Return the error for unencrypted bytes that follow the TLS request."""
    return fatal(
        "Received unencrypted data after SSL request.",
        "08P01",
        "This could be either a client-software bug or evidence of an attempted "
        "man-in-the-middle attack.",
    )


def no_sni() -> ErrorResponse:
    """Return the error for a TLS handshake without a host name (SNI)."""
    detail = "Please upgrade your client to support SNI."
    return fatal("Connection does not have SNI.", "08006", detail)


def handshake_timeout() -> ErrorResponse:
    """Return the error for a login that takes too long."""
    return fatal("Client handshake timeout.", "08006")


def not_authorized(detail: str = "") -> ErrorResponse:
    """Return the error of the external authorization; *detail* replaces its default."""
    detail = detail or (
        "This could be due to paused instances, disabling readable secondaries, IP "
        "ACLs or private link configuration."
    )
    return fatal("External authorization failed.", "28000", detail)


def ip_blocked(workspace_id: str) -> str:
    """Return the text about a blocked IP address, for both the API and the gateway."""
    return (
        "Source IP address: 127.0.0.1 is blocked by Databricks IP ACL for workspace: "
        f"{workspace_id}"
    )


def endpoint_not_found() -> ErrorResponse:
    """Return the error for a host name that belongs to no endpoint."""
    return ErrorResponse(f"{_CONTROL_PLANE}: endpoint cannot be found")


def endpoint_disabled() -> ErrorResponse:
    """Return the error for a disabled endpoint."""
    return ErrorResponse(f"{_CONTROL_PLANE}: endpoint is disabled")


def starting_up() -> ErrorResponse:
    """Return the error while PostgreSQL is starting."""
    return fatal("the database system is starting up", "57P03")


def too_many_connections() -> ErrorResponse:
    """Return the error for a login beyond the connection limit."""
    text = "remaining connection slots are reserved for roles with the SUPERUSER"
    return fatal(f"{text} attribute", "53300")


def token_at_pooled_host() -> ErrorResponse:
    """Return the error for a token that is sent to a pooled host."""
    return fatal("SASL authentication failed", "08P01")


def _no_role(user: str) -> ErrorResponse:
    return fatal(f'role "{user}" does not exist', "28000")


def _no_label(user: str) -> ErrorResponse:
    return fatal(
        "An oauth token was supplied but no role security label was configured in "
        f'postgres for role "{user}"',
        "28P01",
    )


def _not_decoded(user: str) -> ErrorResponse:
    return fatal(
        f'Failed to decode token for role "{user}" and native postgres login was '
        "either not attempted due to configuration or failed.",
        "28P01",
    )


def _wrong_password(user: str) -> ErrorResponse:
    return ErrorResponse(f"password authentication failed for user '{user}'")


class Dialect(StrEnum):
    """
    The layer that rejects a login in the cases that could not be confirmed.

    LIKELY uses the most likely layer for each case. PROXY and POSTGRES use one layer
    for all cases.
    """

    LIKELY = "likely"
    PROXY = "proxy"
    POSTGRES = "postgres"

    def bad_token(self, user: str, text: str) -> ErrorResponse:
        """Return the error for an invalid or expired token; *text* is the proxy's."""
        return _not_decoded(user) if self is Dialect.POSTGRES else ErrorResponse(text)

    def no_role(self, user: str) -> ErrorResponse:
        """Return the error for a role that does not exist."""
        return _wrong_password(user) if self is Dialect.PROXY else _no_role(user)

    def wrong_identity(self, user: str) -> ErrorResponse:
        """Return the error for a token of an identity that the role does not accept."""
        return _wrong_password(user) if self is Dialect.PROXY else _no_label(user)


# The API's messages for tokens that it no longer accepts.
REJECTED_TOKEN_MESSAGES = {
    "invalid": "Invalid access token.",
    "expired": "JWT has expired",
}
NOT_A_JWT = "Provided authentication token is not a valid JWT encoding"
# The messages of the fault reject-logins. Each function takes the name of the user.
MESSAGES: dict[str, Callable[[str], ErrorResponse]] = {
    "jwt": lambda _: ErrorResponse(NOT_A_JWT),
    "expired": lambda _: ErrorResponse(
        f"JWT token has expired (exp={int(time.time()) - 1})"
    ),
    "not-yet": lambda _: ErrorResponse(
        f"JWT token is not yet ready to use (nbf={int(time.time()) + 60})"
    ),
    "audience": lambda _: ErrorResponse("invalid JWT token audience"),
    "signature": lambda _: ErrorResponse("signature error: signature mismatch"),
    "key": lambda _: ErrorResponse("jwk not found"),
    "password": _wrong_password,
    "label": _no_label,
    "decode": _not_decoded,
    "role": _no_role,
    "sasl": lambda _: token_at_pooled_host(),
    "authorization": lambda _: not_authorized(),
    "starting": lambda _: starting_up(),
    "disabled": lambda _: endpoint_disabled(),
    "control-plane": lambda _: ErrorResponse(_CONTROL_PLANE),
    "quota": lambda _: ErrorResponse(
        f"{_CONTROL_PLANE}: endpoint is temporarily unavailable. Check your quotas "
        "and/or contact our support."
    ),
    "permit": lambda _: ErrorResponse(
        "Failed to acquire permit to connect to the database. Too many database "
        "connection attempts are currently ongoing."
    ),
    "attempts": lambda _: ErrorResponse("Too many connections attempts"),
    "compute": lambda _: ErrorResponse("Couldn't connect to compute node"),
    "endpoint-full": lambda _: ErrorResponse(
        "Too many connections to this endpoint. Please try again later."
    ),
    "slow": lambda _: ErrorResponse("Authentication timed out"),
    "handshake": lambda _: fatal("Invalid upstream handshake state.", "XX000"),
    "address": lambda _: ErrorResponse(
        "This IP address 127.0.0.1 is not allowed to connect to this endpoint. If "
        "you think this is an error, please contact your administrator."
    ),
    "too-many": lambda _: fatal("sorry, too many clients already", "53300"),
    "shutdown": lambda _: fatal("the database system is shutting down", "57P03"),
    "nologin": lambda user: fatal(f'role "{user}" is not permitted to log in', "28000"),
    "database": lambda _: fatal('database "nowhere" does not exist', "3D000"),
    "german": lambda _: fatal("das Datenbanksystem startet", "57P03"),
    "unknown": lambda _: ErrorResponse("the weather is bad"),
}
