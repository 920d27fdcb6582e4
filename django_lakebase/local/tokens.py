"""
Tokens: JSON Web Tokens (RFC 7519), signed and verified as the service does.

One key signs both kinds: *workspace* tokens for the API and *database* tokens for
logins to PostgreSQL. A token of one kind is rejected where the other is required.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .login_errors import NOT_A_JWT

ALGORITHM = "RS256"
EXPIRED = "JWT token has expired"


class Audience(StrEnum):
    """The kind of a token: the server that accepts it."""

    WORKSPACE = "workspace"
    DATABASE = "database"


class TokenError(Exception):
    """A token was rejected; the text is the service's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a token; times are Unix timestamps."""

    subject: str
    issued_at: float
    expires_at: float


def generate_key() -> str:
    """Return a new private key, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


class Signer:
    """Signs and verifies the tokens of one workspace."""

    def __init__(self, pem: str) -> None:
        self._private = serialization.load_pem_private_key(pem.encode(), None)
        self._public = self._private.public_key()
        self._key_id = secrets.token_hex(8)

    def sign(
        self,
        audience: Audience,
        subject: str,
        ttl: float,
        extra: Mapping[str, object] | None = None,
    ) -> tuple[str, float]:
        """Return a token for *subject* and its expiry; *ttl* is in seconds."""
        now = time.time()
        claims = {
            **(extra or {}),
            "iss": "https://lakebase.test/oidc",
            "aud": audience.value,
            "sub": subject,
            "iat": now,
            "exp": now + ttl,
            "jti": secrets.token_hex(16),
            "scope": "all-apis"
            if audience is Audience.WORKSPACE
            else "iam.database-access",
        }
        token = jwt.encode(
            claims,
            self._private,  # type: ignore[arg-type]
            ALGORITHM,
            headers={"kid": self._key_id},
        )
        return token, now + ttl

    def verify(self, audience: Audience, token: str) -> Claims:
        """Return the claims of *token*; raises TokenError."""
        try:
            claims = jwt.decode(
                token,
                self._public,  # type: ignore[arg-type]
                [ALGORITHM],
                audience=audience.value,
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError as exc:
            raise TokenError("signature error: signature mismatch") from exc
        except jwt.InvalidAudienceError as exc:
            raise TokenError("invalid JWT token audience") from exc
        except (jwt.InvalidTokenError, UnicodeError) as exc:
            raise TokenError(NOT_A_JWT) from exc
        expires_at = float(claims["exp"])
        if expires_at <= time.time():
            raise TokenError(f"{EXPIRED} (exp={int(expires_at)})")
        return Claims(
            subject=claims["sub"],
            issued_at=float(claims["iat"]),
            expires_at=expires_at,
        )
