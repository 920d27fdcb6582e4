"""Any settings in any environment: a Target or a SettingsError, and no request."""

import contextlib
import os
import socket
import warnings

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from hypothesis import example, given
from hypothesis import strategies as st

from django_lakebase.base import DatabaseWrapper
from django_lakebase.config.fill import fill_settings
from django_lakebase.config.resolve import resolve_target
from django_lakebase.exceptions import SettingsError

ENDPOINT = "projects/p/branches/b/endpoints/e"
SECRET = "open sesame"
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(),
    st.text(max_size=20),
    st.just({}),
    st.just([]),
)
TEXT = st.one_of(st.sampled_from(["", " ", "x", "/run", "@x"]), st.text(max_size=20))
SETTINGS = {
    "NAME": TEXT,
    "USER": TEXT,
    "HOST": TEXT,
    "PORT": st.one_of(st.sampled_from(["", "0", "5432", 5432, "65536"]), TEXT),
    "PASSWORD": st.sampled_from(["", SECRET]),
    "CONN_MAX_AGE": st.sampled_from([0, 60, None, "", "60", "soon"]),
}
OPTIONS = {
    "endpoint": ODD,
    "pool": ODD,
    "reconnect": st.one_of(st.sampled_from(["no", "1"]), ODD),
    "prepare_threshold": ODD,
    "workspace": st.one_of(
        ODD,
        st.sampled_from(["no.such.path", "os.path"]),
        st.dictionaries(
            st.sampled_from(["host", "profile", "client_secret", "hots"]), ODD
        ),
    ),
    "connect_budget": ODD,
    "sslmode": st.one_of(st.sampled_from(["verify-full", "prefer"]), ODD),
    "sslrootcert": ODD,
    "hostaddr": ODD,
    "password": st.sampled_from([None, SECRET]),
    "service": st.sampled_from([None, "", "mine"]),
    "options": ODD,
    "no_such_key": ODD,
}


@st.composite
def up_to_three_of(draw, values, base):
    """Draw *base* with at most three changes: the first error hides all others."""
    keys = draw(st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True))
    return {**base, **{key: draw(values[key]) for key in keys}}


DRAWN_SETTINGS = up_to_three_of(SETTINGS, {})
DRAWN_OPTIONS = up_to_three_of(OPTIONS, {"endpoint": ENDPOINT})
NAMES = [
    "ENDPOINT_NAME",
    "LAKEBASE_ENDPOINT",
    "LAKEBASE_HOSTADDR",
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGOPTIONS",
    "DATABRICKS_HOST",
    "DATABRICKS_CLIENT_ID",
    "DATABRICKS_CLIENT_SECRET",
]
# An environment variable holds neither null characters nor surrogates.
VALUES = st.one_of(
    st.sampled_from(["", ENDPOINT, "5432", "prefer", "/var/run"]),
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
    ),
)
ENVIRONMENTS = st.dictionaries(st.sampled_from(NAMES), VALUES)


def no_network(*_, **__):
    """Fail, in place of a function that uses the network."""
    raise AssertionError("the network was used")


@contextlib.contextmanager
def isolated(variables):
    """Set only these *variables*, and allow no network."""
    before = dict(os.environ)
    patch = pytest.MonkeyPatch()
    for name in [n for n in os.environ if n.startswith(("PG", "DATABRICKS_"))]:
        del os.environ[name]
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ.update(variables)
    patch.setattr(socket.socket, "connect", no_network)
    patch.setattr(socket, "getaddrinfo", no_network)
    try:
        yield
    finally:
        patch.undo()
        os.environ.clear()
        os.environ.update(before)


def configured(settings, options):
    """Return the settings with the keys that Django adds."""
    own = {"ENGINE": "django_lakebase", **settings, "OPTIONS": options}
    return connections.configure_settings({"default": {}, "some": own})["some"]


def read(made, variables):
    """Return the Target or the SettingsError."""
    try:
        return resolve_target(made, "some", variables)
    except SettingsError as exc:
        return exc


@given(DRAWN_SETTINGS, DRAWN_OPTIONS, ENVIRONMENTS)
@example({}, {"endpoint": ENDPOINT}, {})
@example({"HOST": "h"}, {}, {"ENDPOINT_NAME": ENDPOINT})
def test_any_settings_give_a_target_or_a_settings_error(settings, options, variables):
    """No text shows a secret."""
    made = configured(settings, options)
    target = read(made, variables)
    if isinstance(target, SettingsError):
        assert str(target).startswith('DATABASES["some"]: ')
        assert SECRET not in str(target)
        return

    assert hash(target) is not None
    assert SECRET not in repr(target)
    assert target.login is None or target.endpoint or target.host
    assert target.sslmode in ("require", "verify-ca", "verify-full")


def snapshot(value):
    """Return *value* as text, with the type of each value."""
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    return repr(value), type(value)


@given(DRAWN_SETTINGS, DRAWN_OPTIONS, ENVIRONMENTS)
@example({"HOST": 'http:// "h"'}, {"endpoint": ENDPOINT}, {})
@example({}, {"endpoint": ENDPOINT, "reconnect": "no", "pool": None}, {"PGHOST": "h"})
def test_filled_and_unfilled_settings_give_the_same_target(
    settings, options, variables
):
    """Resolving changes neither, and filling again changes nothing."""
    made = configured(settings, options)
    unfilled = snapshot(made)
    before = read(made, variables)
    assert snapshot(made) == unfilled

    fill_settings(made, "some", variables)
    filled = snapshot(made)
    after = read(made, variables)
    assert snapshot(made) == filled
    fill_settings(made, "some", variables)
    assert snapshot(made) == filled

    if isinstance(before, SettingsError):
        assert str(after) == str(before)
    else:
        assert after == before


@given(DRAWN_SETTINGS, DRAWN_OPTIONS, ENVIRONMENTS)
def test_connection_params_are_built_without_network(settings, options, variables):
    with isolated(variables), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper = DatabaseWrapper(configured(settings, options), "some")
        try:
            params = wrapper.get_connection_params()
        except ImproperlyConfigured:
            return

    assert SECRET not in repr({k: v for k, v in params.items() if k != "passfile"})
