"""Signing and verification of tokens."""

import pytest

from django_lakebase.local.tokens import Audience, Signer, TokenError, generate_key


@pytest.fixture(scope="module")
def key():
    """Return one key for all tests, because generating a key is slow."""
    return generate_key()


@pytest.fixture
def signer(key):
    """Return a signer with the shared key."""
    return Signer(key)


def test_verified_token_has_the_subject_and_expiry_it_was_signed_with(signer):
    token, expires_at = signer.sign(Audience.DATABASE, "me", 60)

    claims = signer.verify(Audience.DATABASE, token)

    assert claims.subject == "me"
    assert claims.expires_at == pytest.approx(expires_at)


def test_expired_token_is_rejected_with_the_text_of_the_service(signer):
    token, _ = signer.sign(Audience.DATABASE, "me", -1)

    with pytest.raises(TokenError, match=r"JWT token has expired \(exp=\d+\)"):
        signer.verify(Audience.DATABASE, token)


def test_workspace_token_is_rejected_for_a_database_login(signer):
    token, _ = signer.sign(Audience.WORKSPACE, "me", 60)

    with pytest.raises(TokenError, match="audience"):
        signer.verify(Audience.DATABASE, token)


def test_token_signed_with_another_key_is_rejected(signer):
    token, _ = Signer(generate_key()).sign(Audience.DATABASE, "me", 60)

    with pytest.raises(TokenError, match="signature error"):
        signer.verify(Audience.DATABASE, token)


@pytest.mark.parametrize("text", ["", "secret", "dapi0123", "a.b.c", "eyJh.eyJz."])
def test_text_that_is_not_a_jwt_is_rejected(signer, text):
    with pytest.raises(TokenError, match="not a valid JWT encoding"):
        signer.verify(Audience.DATABASE, text)
