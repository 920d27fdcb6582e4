"""
Tokens: signed and read as the service does, JSON web tokens with an expiry.

One key signs two kinds: *workspace* tokens for the API, *database* tokens for a
login. Neither is good in the other's place.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .gateway.messages import NOT_A_JWT

ALGORITHM = "RS256"
EXPIRED = "JWT token has expired"


class Audience(StrEnum):
    """What a token is good for."""

    WORKSPACE = "workspace"
    DATABASE = "database"


class TokenError(Exception):
    """A token is not accepted; the text is the service's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says; moments are seconds since 1970."""

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
    """Signs and reads the tokens of one workspace."""

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
        """Return a token of *subject* and its expiry; *ttl* is in seconds."""
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
        """Return what *token* says; raises TokenError."""
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
