"""The failure table: which failure a text is recognised as, and its error text."""

import re

import pytest

from django_lakebase.config.target import Target
from django_lakebase.connect.errors import facts_of
from django_lakebase.exceptions import SettingsError
from django_lakebase.failures.catalog import FAILURES
from django_lakebase.failures.classify import (
    KnownFailure,
    chain,
    classify,
    failures_by_id,
    scrub,
    strip_tracebacks,
)
from django_lakebase.failures.failure import Action, Source
from django_lakebase.failures.render import build_error

SERVER = [
    ('FATAL:  role "x" does not exist', "role-missing"),
    ("no role security label was configured in postgres for role", "wrong-user"),
    ("ERROR:  JWT token has expired (exp=1764000000)", "token-expired"),
    ("SASL authentication failed", "pooled-host"),
    ("Provided authentication token is not a valid JWT encoding", "token-rejected"),
    ("password authentication failed for user 'x'", "token-rejected"),
    ('Failed to decode token for role "x" and native postgres', "token-rejected"),
    ("jwk not found", "token-rejected"),
    ("FATAL:  External authorization failed.", "external-authorization"),
    ("Control plane request failed: endpoint is disabled", "endpoint-disabled"),
    ("Control plane request failed: endpoint cannot be found", "wrong-host"),
    ("failed to resolve host 'x': [Errno -2] Name or service not known", "wrong-host"),
    ("[Errno -2] Name or service not known", "wrong-host"),
    ("Connection does not have SNI.", "wrong-host"),
    (
        'server certificate for "*.x" (and 1 other name) does not match host name "y"',
        "wrong-host",
    ),
    ('database "x" does not exist', "database-missing"),
    ("sorry, too many clients already", "too-many-connections"),
    ("remaining connection slots are reserved", "too-many-connections"),
    ('permission denied for database "x"', "permission-denied"),
    ('role "x" is not permitted to log in', "permission-denied"),
    ("SSL error: certificate verify failed", "certificate-not-verified"),
    ('root certificate file "/none" does not exist', "tls-failed"),
    ("Invalid protocol version. Protocol version: 196608", "tls-failed"),
    ("server does not support SSL, but SSL was required", "tls-failed"),
    ('invalid connection option "nosuch"', "option-unknown"),
    ("the database system is starting up", "waking"),
    ("Connection refused", "waking"),
    ("server closed the connection unexpectedly", "waking"),
    ("SSL SYSCALL error: EOF detected", "waking"),
    ("SSL error: unexpected eof while reading", "waking"),
    ("timeout expired", "waking"),
    ("Couldn't connect to compute node", "waking"),
    ("Failed to acquire permit to connect to the database.", "waking"),
    ("Control plane request failed", "waking"),
    ("failed to resolve host 'x': Temporary failure in name resolution", "waking"),
    ("[Errno -3] Temporary failure in name resolution", "waking"),
    ("terminating connection due to administrator command", "waking"),
    ("JWT token is not yet ready to use (nbf=1764000000)", "token-early"),
    ("endpoint is temporarily unavailable. Check your quotas", "endpoint-unavailable"),
    ("External authorization failed. blocked by Databricks IP ACL", "address-rejected"),
    ("This IP address 1.2.3.4 is not allowed to connect", "address-rejected"),
    (
        "channel binding required but not supported by server's authentication request",
        "channel-binding",
    ),
    ("permission denied to create database", "createdb-missing"),
    ('permission denied to copy database "stock"', "template-denied"),
    ("permission denied for schema public", "schema-denied"),
    ("the moon is in the wrong house", "unexplained"),
]


def named_error(kind, text):
    """Return an error whose class is called *kind*."""
    return type(kind, (OSError,), {})(text)


WORKSPACE = [
    (named_error("HTTPError", "429: Too many requests."), "api-throttled"),
    (named_error("NotFound", "No API found for 'POST /2.0/postgres'"), "api-missing"),
    (
        named_error(
            "PermissionDenied", "token does not have required scopes: postgres"
        ),
        "scopes-missing",
    ),
    (named_error("JSONDecodeError", "Expecting value: line 1"), "response-unusable"),
    (AttributeError("'list' object has no attribute 'get'"), "response-unusable"),
    (ImportError("No module named_error 'databricks'"), "sdk-missing"),
    (ValueError("/x has no prod profile configured"), "unknown-profile"),
    (ValueError("more than one authorization method configured"), "ambiguous-login"),
    (ValueError("invalid_client: Client authentication failed"), "bad-client-secret"),
    (
        type("PermissionDenied", (OSError,), {})(
            "This API is disabled for users without the workspace-access entitlement."
        ),
        "workspace-access-missing",
    ),
    (OSError("1.2.3.4 is blocked by Databricks IP ACL for workspace"), "ip-blocked"),
    (type("NotFound", (OSError,), {})("endpoint id not found"), "endpoint-not-found"),
    (type("Unauthenticated", (OSError,), {})("Invalid token"), "login-token-rejected"),
    (
        named_error("PermissionDenied", "Invalid access token. [ReqId: 1]"),
        "login-token-rejected",
    ),
    (named_error("PermissionDenied", "JWT has expired"), "login-token-rejected"),
    (
        named_error("PermissionDenied", "Token is expiring within 30 seconds."),
        "login-token-rejected",
    ),
    (type("PermissionDenied", (OSError,), {})("no"), "permission-missing"),
    (type("TooManyRequests", (OSError,), {})("slow down"), "api-throttled"),
    (ConnectionError("Connection refused"), "api-unreachable"),
    (TimeoutError("no answer within 10 s"), "api-unreachable"),
    (ValueError("Invalid URL 'None': No scheme supplied"), "api-unreachable"),
    (
        OSError("certificate verify failed: self-signed certificate in chain"),
        "api-ca-unknown",
    ),
    (
        OSError("certificate verify failed: self signed certificate"),
        "api-ca-unknown",
    ),
    (OSError("certificate verify failed: certificate has expired"), "api-certificate"),
    (
        OSError("SSLError(PermissionError(13, 'Permission denied'))"),
        "ca-bundle-unusable",
    ),
    (ValueError("cannot configure default credentials"), "no-login"),
    (KnownFailure("empty-credential"), "empty-credential"),
    (RuntimeError("never heard of"), "workspace-unexplained"),
]


@pytest.mark.parametrize(("text", "failure_id"), SERVER)
def test_server_message_is_recognised(text, failure_id):
    """Psycopg gives no SQLSTATE for a failed connect, so the text decides."""
    assert classify(OSError(text), Source.SERVER).id == failure_id


@pytest.mark.parametrize(("error", "failure_id"), WORKSPACE)
def test_sdk_error_is_recognised(error, failure_id):
    """The SDK raises ValueError, Exception and subclasses of OSError."""
    assert classify(error, Source.WORKSPACE).id == failure_id


def test_cause_of_an_sdk_error_is_recognised():
    """The SDK wraps errors of the network."""
    error = TimeoutError("Timed out after 0:00:01")
    error.__cause__ = ValueError("invalid_client")

    assert classify(error, Source.WORKSPACE).id == "bad-client-secret"


NATIVE = [
    ('password authentication failed for user "x"', "password-rejected"),
    ("Provided authentication token is not a valid JWT encoding", "password-rejected"),
    ('Failed to decode token for role "x" and native postgres', "password-rejected"),
    ("SASL authentication failed", "password-rejected"),
    ("fe_sendauth: no password supplied", "password-rejected"),
    ('FATAL:  role "x" does not exist', "password-rejected"),
    ("JWT token has expired (exp=1764000000)", "password-is-token"),
    ("signature error: signature mismatch", "password-is-token"),
    ("jwk not found", "password-is-token"),
    (
        'no role security label was configured in postgres for role "x"',
        "password-is-token",
    ),
    ('role "x" is not permitted to log in', "permission-denied"),
    ("Connection refused", "waking"),
]


@pytest.mark.parametrize(("text", "failure_id"), NATIVE)
def test_message_for_a_native_login_is_recognised(text, failure_id):
    """The same text means something else if the password is not a token."""
    assert classify(OSError(text), Source.SERVER, native=True).id == failure_id


@pytest.mark.parametrize("text", [text for text, _ in SERVER])
def test_hints_for_native_logins_do_not_mention_tokens(text):
    """Native roles are created with CREATE ROLE, and their passwords do not expire."""
    target = Target(
        alias="default",
        label="it",
        login=None,
        user="native",
        password_setting="PASSWORD",
    )
    failure = classify(OSError(text), Source.SERVER, native=True)

    message = str(build_error(SettingsError, failure, "it", facts_of(target)))

    for words in ("databricks_create_role", "made just now", "clock", "identity"):
        assert words not in message or failure.id == "token-early"


@pytest.mark.parametrize("native", [True, False])
def test_names_in_the_sql_of_hints_are_quoted(native):
    """Single or double quotes are doubled."""
    facts = {"user": "o'h\"ara", "database": 'd"b', "name": 't"n', "template": 't"t'}
    rows = [row for row in FAILURES if row.native in (None, native)]
    hints = [build_error(SettingsError, row, "it", facts).hint for row in rows]
    sql = [hint for hint in hints if re.search("CREATE|GRANT|ALTER", hint)]

    assert len(sql) > 3
    for hint in sql:
        assert not re.search(r"""'h"a|d"b|t"n|t"t""", without_escaped_quotes(hint))
    assert any("""CREATE DATABASE "t""n";""" in hint for hint in sql)
    assert any("""ALTER DATABASE "t""t" """ in hint for hint in sql)


def without_escaped_quotes(text):
    """Return the statements of *text*, without prose and doubled quotes."""
    statements = re.findall(r"(?:CREATE|GRANT|ALTER|SELECT|REASSIGN)[^;]*;", text)
    return " ".join(statements).replace('""', "").replace("''", "")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_failure_is_rendered_without_placeholders(failure):
    """Each caller knows all facts that the sentences need."""
    target = Target(alias="default", label='DATABASES["default"]', login=None)
    own = [
        *("given", "name", "value", "problem", "kind"),
        *("skew", "state", "template", "waited", "identity", "lost", "visible"),
        *("profile", "file", "method", "program", "path", "command"),
    ]

    error = build_error(
        SettingsError,
        failure,
        target.label,
        facts_of(target, **dict.fromkeys(own, "it"), fix="Do it."),
    )

    assert "<" not in str(error).replace("<id>", "")
    assert str(error).startswith('DATABASES["default"]: ')
    assert error.hint.endswith((".", ";"))
    assert error.failure is failure


def test_failure_ids_are_unique():
    assert len(failures_by_id()) == len(FAILURES)


def test_failures_that_lakebase_check_wait_repeats():
    passing = {failure.id for failure in FAILURES if failure.is_transient}

    assert passing == {
        "response-unusable",
        "api-throttled",
        "api-unreachable",
        "endpoint-search-timeout",
        "endpoint-unavailable",
        "external-authorization",
        "host-unknown",
        "pool-exhausted",
        "token-early",
        "waking",
    }


def test_only_rejected_tokens_are_refreshed():
    refreshed = {failure.id for failure in FAILURES if failure.action is Action.REFRESH}

    assert refreshed == {"token-expired", "token-rejected"}


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.abc-def_123",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0",
        "dapi0123456789abcdef",
        "dose0123456789abcdef",
    ],
)
def test_token_in_a_text_is_replaced_by_asterisks(secret):
    assert scrub(f"before {secret} after") == "before *** after"


def test_sdk_configuration_is_cut_from_messages():
    """The SDK appends all of it to its messages."""
    assert scrub("invalid. Config: host=x, client_secret=***") == "invalid"


def test_error_has_no_message_or_detail_attribute():
    """Sentry would show it instead of the text with alias and hint."""
    error = build_error(
        SettingsError, failures_by_id()["endpoint-missing"], "alias", {}
    )

    assert str(error).startswith("alias: ")
    assert not hasattr(error, "message")
    assert not hasattr(error, "detail")


def test_circular_causes_are_followed_at_most_eight_times():
    error = ValueError("again")
    error.__cause__ = error

    assert len(list(chain(error))) == 8


def test_cause_of_a_timeout_is_quoted():
    """The SDK's own text only says how long it tried."""
    error = TimeoutError("Timed out after 0:00:01")
    error.__cause__ = named_error("TooManyRequests", "slow down")

    explained_error = build_error(
        SettingsError, failures_by_id()["api-throttled"], "it", {"seen": error}
    )

    assert 'Seen: "Timed out after 0:00:01: TooManyRequests: slow down"' in str(
        explained_error
    )


@pytest.mark.parametrize(
    ("user", "said"),
    [
        (
            "11111111-2222",
            "databricks_create_role('11111111-2222', 'SERVICE_PRINCIPAL')",
        ),
        ("pat.o'hara@x.com", "databricks_create_role('pat.o''hara@x.com', 'USER')"),
    ],
)
def test_hint_creates_the_role_of_the_login(user, said):
    """The SQL can be run unchanged, for people and service principals."""
    error = build_error(
        SettingsError, failures_by_id()["role-missing"], "it", {"user": user}
    )

    assert said in error.hint


def test_ambiguous_login_hint_fits_the_settings_and_the_environment():
    """The SDK says the same about both."""
    failure = failures_by_id()["ambiguous-login"]

    assert "environment" not in failure.summary
    for name in ("DATABRICKS_AUTH_TYPE", 'OPTIONS["workspace"]', "auth_type"):
        assert name in failure.hint


def raised(exc):
    """Return *exc* with a traceback."""
    try:
        raise exc
    except type(exc):
        return exc


def test_tracebacks_of_causes_and_contexts_are_removed():
    """Django sets a cause, and Python keeps the context beside it."""
    error, cause, context = (raised(ValueError(name)) for name in "abc")
    error.__cause__, error.__context__ = cause, context

    strip_tracebacks(error)

    assert [e.__traceback__ for e in (error, cause, context)] == [None] * 3


def test_cycle_of_causes_does_not_stop_the_removal_of_tracebacks():
    error, cause = raised(ValueError("a")), raised(ValueError("b"))
    error.__cause__, cause.__cause__ = cause, error

    strip_tracebacks(error)

    assert error.__traceback__ is cause.__traceback__ is None
