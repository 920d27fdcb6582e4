"""Tokens: who may use which, and until when."""

import pytest

from django_lakebase.local.tokens import Audience, Signer, TokenError, generate_key


@pytest.fixture(scope="module")
def key():
    """Give one key for all: making it takes a while."""
    return generate_key()


@pytest.fixture
def signer(key):
    """Give a signer."""
    return Signer(key)


def test_a_token_says_who_and_until_when(signer):
    """What was signed is read."""
    token, expires_at = signer.sign(Audience.DATABASE, "me", 60)

    claims = signer.verify(Audience.DATABASE, token)

    assert claims.subject == "me"
    assert claims.expires_at == pytest.approx(expires_at)


def test_an_expired_token_is_refused(signer):
    """In the service's words."""
    token, _ = signer.sign(Audience.DATABASE, "me", -1)

    with pytest.raises(TokenError, match=r"JWT token has expired \(exp=\d+\)"):
        signer.verify(Audience.DATABASE, token)


def test_a_token_for_the_api_is_none_for_a_login(signer):
    """The commonest mistake of all."""
    token, _ = signer.sign(Audience.WORKSPACE, "me", 60)

    with pytest.raises(TokenError, match="audience"):
        signer.verify(Audience.DATABASE, token)


def test_a_forged_token_is_refused(signer):
    """Another key signs for another workspace."""
    token, _ = Signer(generate_key()).sign(Audience.DATABASE, "me", 60)

    with pytest.raises(TokenError, match="signature error"):
        signer.verify(Audience.DATABASE, token)


@pytest.mark.parametrize("text", ["", "secret", "dapi0123", "a.b.c", "eyJh.eyJz."])
def test_what_is_no_token_is_refused(signer, text):
    """In the words that users know."""
    with pytest.raises(TokenError, match="not a valid JWT encoding"):
        signer.verify(Audience.DATABASE, text)
