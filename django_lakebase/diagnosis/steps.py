"""
The steps of ``lakebase_check``: runs them and returns results, without printing.

Each step verifies one thing and relies on the steps before it. The steps follow the
order in which a connection is opened. After a failed step, the others are skipped.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import sql

from django_lakebase.auth.credentials import Credential, utc_now
from django_lakebase.auth.host_check import describe_other_host
from django_lakebase.auth.registry import Access, access_to
from django_lakebase.auth.singleflight import CALL_TIMEOUT, CallError
from django_lakebase.auth.strategies import auth_for
from django_lakebase.base import LakebaseMixin
from django_lakebase.config import libpq
from django_lakebase.config.target import Target, endpoint_option
from django_lakebase.connect.errors import call_workspace, connect_error, facts_of
from django_lakebase.connect.liveness import Connection, lifetime_of
from django_lakebase.connect.params import Params, get_host, get_user
from django_lakebase.connect.retry import RetryPolicy
from django_lakebase.exceptions import ExplainedError
from django_lakebase.failures.classify import failures_by_id, scrub
from django_lakebase.failures.failure import Action
from django_lakebase.failures.render import summary_and_hint

from .deploy import DEPLOY_STEPS
from .schema import QUERY, SchemaFacts, describe_schema
from .session import Session, open_connection
from .step import Finding, Outcome, Status, Step
from .tls import Handshake, check_handshake, perform_handshake

# The steps that a login with a password does not need.
TOKEN_STEPS = ("sdk-login", "identity", "endpoint", "credential", "rotation")
# Seconds that the search for the endpoint of a host may take here.
SEARCH_TIMEOUT = 60.0
# The share of a time limit after which connecting is not retried. The rest is for the
# last attempt, and for the first one if little time is left.
RETRY_SHARE = 0.8

T = TypeVar("T")

StepResult: TypeAlias = Outcome | str | None
Query: TypeAlias = LiteralString | sql.Composed


@dataclass(frozen=True, slots=True)
class _StepWarning(Exception):  # noqa: N818 - ends a step, not the diagnosis.
    """Raised by a step if something looks wrong, but connecting may still succeed."""

    detail: str
    hint: str


class Diagnosis:
    """
    Verifies step by step that *wrapper*, a Django connection, can connect.

    With *deploy*, also verifies that its role can run the project and its migrations.
    Runs the steps in *only*, or all of them. With *timeout*, each request to the
    workspace may take that many seconds, and retries of the connection end early enough
    to report their error in *timeout* seconds from the start.
    """

    def __init__(
        self,
        wrapper: LakebaseMixin,
        *,
        deploy: bool = False,
        only: Collection[str] = (),
        timeout: float | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._deploy = deploy
        self._only = only
        self._timeout = timeout
        self._started_at = 0.0
        self._target: Target
        self._access: Access
        self._identity = ""
        self._groups: frozenset[str] = frozenset()
        self._connection: Connection | None = None
        self._credential: Credential | None = None
        # A duplicate of the socket of the connection, for `cancel`.
        self._socket: socket.socket | None = None
        self._socket_lock = threading.Lock()
        self.is_cancelled = False

    def run(self) -> Generator[Step, None, None]:
        """Yield the result of each step as soon as it ends."""
        has_failed, was_open = False, self._wrapper.connection is not None
        self._started_at = time.monotonic()
        try:
            for name, function in self._steps():
                if has_failed:
                    detail = "an earlier step failed"
                    yield Step(id=name, status=Status.SKIPPED, detail=detail)
                    continue
                step = self._run_step(name, function)
                # The deployment steps do not rely on each other.
                has_failed = step.status is Status.FAIL and (
                    name not in DEPLOY_STEPS or self._has_lost_connection()
                )
                yield step
        finally:
            with self._socket_lock:
                if self._socket is not None:
                    self._socket.close()
            if self._connection is not None:
                self._connection.close()
            if not was_open:
                self._wrapper.close()

    def cancel(self) -> None:
        """
        End the session, now or as soon as it is open; for use in another thread.

        Psycopg sets no time limit on queries, so if the server no longer responds, the
        thread would never end.
        """
        with self._socket_lock:
            self.is_cancelled = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # It may have been closed already.
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _steps(self) -> list[tuple[str, Callable[[], StepResult]]]:
        """
        Return the id and the function of each step.

        A function returns the detail, an Outcome, or None if the step does not apply.
        It raises `_StepWarning` or `ExplainedError`. The steps in `TOKEN_STEPS` are
        skipped if the login has a password.
        """
        steps: list[tuple[str, Callable[[], StepResult]]] = [
            ("settings", self._settings),
            ("sdk-login", self._sdk_login),
            ("identity", self._fetch_identity),
            ("endpoint", self._endpoint),
            ("credential", self._new_credential),
            ("tls", self._tls),
            ("login", self._login),
            ("role", self._role),
            ("database", self._database),
            ("rotation", self._rotation),
        ]
        if self._deploy:
            for name, function in DEPLOY_STEPS.items():
                steps.append((name, partial(self._run_deploy_step, function)))
        return [step for step in steps if not self._only or step[0] in self._only]

    def _run_deploy_step(self, function: Callable[[Session], Outcome]) -> Outcome:
        if self._connection is None:
            raise RuntimeError("there is no connection")
        return function(Session(wrapper=self._wrapper, connection=self._connection))

    def _has_lost_connection(self) -> bool:
        return self._connection is not None and self._connection.closed

    def _run_step(self, name: str, function: Callable[[], StepResult]) -> Step:
        started = time.monotonic()
        status, hint, is_transient = Status.OK, "", False
        findings: tuple[Finding, ...] = ()
        try:
            is_skipped = name in TOKEN_STEPS and self._target.login is None
            detail = None if is_skipped else function()
            if isinstance(detail, Outcome):
                status, hint, findings = detail.status, detail.hint, detail.findings
                detail = detail.detail
        except _StepWarning as exc:
            status, detail, hint = Status.WARN, exc.detail, exc.hint
        except ExplainedError as exc:
            status, detail, hint = Status.FAIL, exc.summary, exc.hint
            is_transient = exc.failure.is_transient
        except psycopg.OperationalError as exc:
            status, is_transient = Status.FAIL, self._has_lost_connection()
            what = "the connection was lost" if is_transient else "a query failed"
            detail = f'{what}. Seen: "{scrub(str(exc)).strip()}"'
            hint = "Run the command again."
        except Exception as exc:  # noqa: BLE001 - unexpected errors are reported too.
            seen = f"{type(exc).__name__}: {scrub(str(exc))}"
            status, detail = Status.FAIL, f'the step raised an error. Seen: "{seen}"'
            hint = "Report this line as an issue of django_lakebase."
        if detail is None:
            setting = self._target.password_setting
            status, detail = Status.SKIPPED, f"{setting} is set, so no token is used"
            if name == "tls":
                detail = "the host is in libpq's service file"
        return Step(
            id=name,
            status=status,
            detail=detail,
            hint=hint,
            seconds=time.monotonic() - started,
            is_transient=is_transient,
            findings=findings,
        )

    def _settings(self) -> str:
        target = self._target = self._wrapper.get_target()
        params = self._wrapper.get_connection_params()
        # Creates the pool without opening it, to validate its settings.
        self._wrapper.pool  # noqa: B018
        if target.is_password_token:
            failure = failures_by_id()["password-is-token"]
            raise _StepWarning(*summary_and_hint(failure, facts_of(target)))
        if target.login is not None:
            self._access = access_to(target)
        host = target.host or "host from the workspace"
        endpoint = target.endpoint or "no endpoint set (to be found by the host)"
        if target.login is None:
            endpoint = target.endpoint or "native login"
        found = f'{endpoint}, {host}, "{target.database}"'
        warnings = (
            libpq.date_style_warning(os.environ),
            libpq.ignored_variables_warning(params, os.environ),
        )
        given = [(detail, hint) for detail, hint in warnings if detail]
        if given:
            details, hints = zip(*given, strict=True)
            raise _StepWarning("; ".join((found, *details)), " ".join(hints))
        return found

    def _sdk_login(self) -> str:
        return self._call(self._access.workspace.log_in)

    def _fetch_identity(self) -> str:
        workspace, user = self._access.workspace, self._target.user
        identity = self._identity = self._call(workspace.identity)
        if user in ("", identity):
            return identity
        self._groups = self._call(workspace.groups)
        self._compare_with_identity(user)
        return f'{identity}, a member of the group "{user}"'

    def _compare_with_identity(self, user: str) -> None:
        """Raise _StepWarning if *user* is not the identity: its login would fail."""
        identity = self._identity
        if identity and user not in (identity, *self._groups):
            facts = facts_of(self._target, user=user, identity=identity)
            raise _StepWarning(
                *summary_and_hint(failures_by_id()["user-not-identity"], facts)
            )

    def _endpoint(self) -> str:
        target, access = self._target, self._access
        name = call_workspace(target, self._find_endpoint)
        endpoint = self._call(partial(access.workspace.endpoint, name))
        if endpoint.is_disabled:
            raise self._error("endpoint-disabled")
        warning = describe_other_host(target, endpoint) if target.host else ("", "")
        if any(warning):
            raise _StepWarning(*warning)
        get_host(target)
        kind = "read-write" if endpoint.is_read_write else "read-only"
        found = f"{endpoint.state}, {kind}, {endpoint.host or 'no host yet'}"
        if target.endpoint:
            return found
        option = endpoint_option(target.host_setting)
        return (
            f"{found}; {name}, found by the host {target.host}: to save the search, "
            f"set {option} to this name"
        )

    def _find_endpoint(self) -> str:
        try:
            return self._access.endpoint.get(SEARCH_TIMEOUT)
        except CallError as exc:
            budget = f"{SEARCH_TIMEOUT:g}"
            error = self._access.explain_timeout(exc, budget=budget)
            raise error from error.__cause__

    def _new_credential(self) -> str:
        credentials = self._access.credentials
        credential = self._call(credentials.get)
        if credentials.clock_skew:
            raise _StepWarning(
                f"clock skew: {credentials.clock_skew}",
                failures_by_id()["clock-skew"].hint,
            )
        left = int(credential.left(utc_now()).total_seconds())
        return f"expires {credential.expires_at:%Y-%m-%d %H:%M:%S} UTC, in {left} s"

    def _tls(self) -> str | None:
        host = get_host(self._target)
        if not host:
            return None
        user = get_user(self._target)
        params = {**self._wrapper.get_connection_params(), "host": host, "user": user}
        handshake = self._shake_hands(params)
        found = _describe(handshake)
        if handshake.is_verified or self._target.login is None:
            return found
        raise _StepWarning(found, self._how_to_verify(params))

    def _shake_hands(self, params: Params) -> Handshake:
        """Make a TLS handshake, with retries; raises LakebaseError."""
        auth, policy = auth_for(self._target), RetryPolicy(self._target.connect_budget)
        while True:
            try:
                return perform_handshake(self._target, params, policy.left())
            except psycopg.OperationalError as exc:
                failure = auth.classify(exc)
                action, pause = policy.next(failure.action)
                host = params["host"]
                error = connect_error(self._target, exc, failure, seen=exc, host=host)
            if action is not Action.RETRY:
                raise error
            time.sleep(pause)

    def _how_to_verify(self, params: Params) -> str:
        """Return what to set so that the certificate is verified, after trying it."""
        bundle = libpq.system_bundle(os.environ.get("SSL_CERT_FILE", ""))
        verified = {**params, "sslmode": "verify-full", "sslrootcert": bundle}
        try:
            check_handshake(verified, CALL_TIMEOUT)
        except psycopg.OperationalError as exc:
            reason = str(exc).strip().rpartition(": ")[2]
            failure, host = auth_for(self._target).classify(exc), params["host"]
            fix = connect_error(self._target, exc, failure, seen=exc, host=host).hint
            if failure.id == "certificate-not-verified":
                fix = (
                    'Set OPTIONS["sslrootcert"] (PGSSLROOTCERT) to the file of the CA '
                    "that signed the server's certificate, and sslmode to verify-full."
                )
            return (
                "Any server that answers at this address gets the token. verify-full "
                f"with the public certificate authorities fails here ({reason}). {fix}"
            )
        return (
            "Any server that answers at this address gets the token. verify-full "
            'succeeds here: set OPTIONS["sslmode"] (PGSSLMODE) to it.'
        )

    def _login(self) -> str:
        connection = self._connection = self._open()
        with self._socket_lock:
            if self.is_cancelled:
                raise TimeoutError("cancelled")
            self._socket = socket.fromfd(
                connection.fileno(), socket.AF_INET, socket.SOCK_STREAM
            )
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version')")
            [(version,)] = cursor.fetchall()
        return f'PostgreSQL {version}, as "{connection.info.user}"'

    def _role(self) -> str:
        role = self._wrapper.settings_dict["OPTIONS"].get("assume_role")
        if role and self._connection is not None:
            self._wrapper._configure_role(self._connection)  # noqa: SLF001 - Django's.
        [(current, session)] = self._execute("SELECT current_user, session_user")
        self._compare_with_identity(session)
        return f'current_user is "{current}"' + (" (assume_role)" if role else "")

    def _database(self) -> str:
        schema = self._target.schema
        [row] = self._execute(QUERY, {"schema": schema})
        [(is_read_only,)] = self._execute("SHOW transaction_read_only")
        detail, hint = describe_schema(SchemaFacts(*row), schema)
        if is_read_only == "on":
            return f"{detail}; transactions are read-only"
        if hint:
            raise _StepWarning(detail, hint)
        return detail

    def _rotation(self) -> str:
        credential = self._call(self._access.credentials.fetch_uncached)
        connection = self._open(credential)
        lifetime = lifetime_of(connection)
        connection.close()
        if lifetime is None:
            raise RuntimeError("the connection was opened without a credential")
        return (
            f"a second credential works too, until {lifetime.expires_at:%H:%M:%S} UTC"
        )

    def _call(self, request: Callable[..., T]) -> T:
        """Return the result of a request to the workspace; raises LakebaseError."""
        timeout = CALL_TIMEOUT if self._timeout is None else self._timeout
        return call_workspace(self._target, lambda: request(timeout=timeout))

    def _error(self, failure_id: str) -> ExplainedError:
        return connect_error(
            self._target, RuntimeError(failure_id), failures_by_id()[failure_id]
        )

    def _open(self, credential: Credential | None = None) -> Connection:
        target = self._target
        if self._timeout is not None:
            used = (time.monotonic() - self._started_at) / self._timeout
            share = max(RETRY_SHARE - used, 1 - RETRY_SHARE)
            budget = round(share * self._timeout, 2)
            target = replace(target, connect_budget=budget)
        return open_connection(self._wrapper, target=target, credential=credential)

    def _execute(
        self, query: Query, values: Mapping[str, str] | None = None
    ) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise RuntimeError("there is no connection")
        with self._connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []


def _describe(handshake: Handshake) -> str:
    offers = {True: ", direct TLS", False: ", no direct TLS", None: ""}
    return (
        f"{handshake.version}, {handshake.verified} (sslmode={handshake.sslmode})"
        f"{offers[handshake.is_direct]}"
    )
