"""The failure table for any error: each is recognised, and no token is shown."""

from hypothesis import given
from hypothesis import strategies as st

from django_lakebase.config.target import Target
from django_lakebase.connect.errors import facts_of
from django_lakebase.exceptions import LakebaseError
from django_lakebase.failures.catalog import FAILURES
from django_lakebase.failures.classify import chain, classify, retry_after, scrub
from django_lakebase.failures.failure import Source
from django_lakebase.failures.render import build_error

# Words of the table, so that a text resembles several rows.
WORDS = sorted({word for row in FAILURES for word in row.pattern.split() if word})
TEXTS = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
)
KINDS = st.sampled_from([OSError, ValueError, TimeoutError, ConnectionError, KeyError])
ERRORS = st.builds(lambda kind, text: kind(text), KINDS, TEXTS)
SOURCES = st.sampled_from([Source.WORKSPACE, Source.SERVER])
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
PART = st.text(LETTERS, min_size=20, max_size=60)
TOKENS = st.one_of(
    st.builds("eyJ{}.eyJ{}.{}".format, PART, PART, PART),
    st.builds("dose{}".format, st.text("0123456789abcdef", min_size=32, max_size=32)),
)


@given(st.lists(ERRORS, min_size=1, max_size=12), SOURCES, st.booleans(), st.data())
def test_any_error_is_recognised(errors, source, native, data):
    """Also chains of any length, and circular ones."""
    for error in errors:
        error.__cause__ = data.draw(st.sampled_from([None, *errors]))
        error.__context__ = data.draw(st.sampled_from([None, *errors]))
    target = Target(alias="default", label='DATABASES["default"]', login=None)

    failure = classify(errors[0], source, native=native)
    shown = build_error(
        LakebaseError, failure, target.label, facts_of(target, seen=errors[0])
    )

    assert failure in FAILURES
    assert len(list(chain(errors[0]))) <= 8
    assert retry_after(errors[0]) == 0
    assert str(shown).startswith('DATABASES["default"]: ')


@given(TEXTS, TOKENS, TEXTS, SOURCES)
def test_token_in_an_error_is_never_shown(before, token, after, source):
    """It may be anywhere in the text of a server or a proxy."""
    error = OSError(f"{before} {token} {after}")
    target = Target(alias="default", label='DATABASES["default"]', login=None)

    def shown(seen):
        facts = facts_of(target, seen=seen)
        found = build_error(LakebaseError, classify(error, source), target.label, facts)
        return f"{found} {found.summary} {found.hint}"

    # The random token may contain a word of the hint, such as DATABRICKS_HOST.
    known = f"{shown('')} {before} {after}"
    pieces = {token[i : i + 12] for i in range(len(token) - 11)}
    assert not [p for p in pieces if p in shown(error) and p not in known]


@given(st.text())
def test_scrub_is_idempotent_and_returns_one_line(text):
    once = scrub(text)

    assert scrub(once) == once
    assert "\n" not in once
