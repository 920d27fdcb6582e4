"""
The steps behind ``lakebase_check``, as values: nothing is printed here.

Each step proves one thing and stands on the ones before it, in the order in which a
connection comes about. The first that fails ends the proof.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString, TypeAlias, TypeVar

import psycopg
from psycopg import sql

from . import libpq
from .base import LakebaseMixin
from .config import Login, Target
from .connection import (
    Connection,
    LakebaseError,
    ask_workspace,
    lease_of,
    refusal,
    resolve_host,
    resolve_user,
)
from .credentials import Credential, utc_now
from .errors import Explained, explain, scrub, table, words
from .flight import CALL_BOUND
from .handshake import Handshake, shake_hands
from .kinds import Source, Then
from .ladder import Ladder
from .opening import Opening
from .workspace import (
    access_to,
    bounded,
    fetch_endpoint,
    fetch_groups,
    fetch_identity,
    log_in,
)

T = TypeVar("T")
Query: TypeAlias = LiteralString | sql.Composed


class Status(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    One step's outcome; *seconds* is how long it took.

    *may_pass* tells that the same may succeed later, without a change.
    """

    id: str
    status: Status
    detail: str
    mend: str = ""
    seconds: float = 0.0
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class _Doubt(Exception):  # noqa: N818 - ends a step, not the proof.
    """Something is odd, and a connection may come about all the same."""

    detail: str
    mend: str


class Diagnosis:
    """The proof that *wrapper*, a connection of Django's, can connect."""

    def __init__(self, wrapper: LakebaseMixin) -> None:
        self._wrapper = wrapper
        self._target: Target
        self._identity = ""
        self._groups: frozenset[str] = frozenset()
        self._connection: Connection | None = None
        self._credential: Credential | None = None

    def run(self) -> Iterator[Step]:
        """Yield the steps as they end."""
        has_failed = False
        try:
            for name, prove in self._steps():
                if has_failed:
                    detail = "an earlier step failed"
                    yield Step(id=name, status=Status.SKIPPED, detail=detail)
                    continue
                step = self._prove(name, prove)
                has_failed = step.status is Status.FAIL
                yield step
        finally:
            if self._connection is not None:
                self._connection.close()

    def _steps(self) -> tuple[tuple[str, Callable[[], str | None]], ...]:
        return (
            ("settings", self._settings),
            ("sdk-login", self._sdk_login),
            ("identity", self._ask_identity),
            ("endpoint", self._endpoint),
            ("credential", self._new_credential),
            ("tls", self._tls),
            ("login", self._login),
            ("role", self._role),
            ("database", self._database),
            ("rotation", self._rotation),
        )

    def _prove(self, name: str, prove: Callable[[], str | None]) -> Step:
        started = time.monotonic()
        status, mend, may_pass = Status.OK, "", False
        try:
            detail = prove()
        except _Doubt as exc:
            status, detail, mend = Status.WARN, exc.detail, exc.mend
        except Explained as exc:
            status, detail, mend = Status.FAIL, exc.finding, exc.mend
            may_pass = exc.failure.may_pass
        except Exception as exc:  # noqa: BLE001 - this command is for what nobody foresaw.
            seen = f"{type(exc).__name__}: {scrub(str(exc))}"
            status, detail = Status.FAIL, f'it ended in an error. Seen: "{seen}"'
            mend = "Report it, with this line, as an issue of django_lakebase."
        if detail is None:
            setting = self._target.password_setting
            status, detail = Status.SKIPPED, f"{setting} is set: no token is used"
            if name == "tls":
                detail = "libpq's service file says where"
        return Step(
            id=name,
            status=status,
            detail=detail,
            mend=mend,
            seconds=time.monotonic() - started,
            may_pass=may_pass,
        )

    def _settings(self) -> str:
        target = self._target = self._wrapper.get_target()
        params = self._wrapper.get_connection_params()
        # Made, and not opened: what is wrong with its settings shows.
        self._wrapper.pool  # noqa: B018
        if target.is_password_token:
            raise _Doubt(*words(table()["password-is-token"], target.facts()))
        host = target.host or "host from the workspace"
        found = f'{target.endpoint or "native login"}, {host}, "{target.database}"'
        warnings = (
            libpq.date_style_warning(os.environ),
            libpq.warning(params, os.environ),
        )
        doubts = [(detail, hint) for detail, hint in warnings if detail]
        if doubts:
            details, hints = zip(*doubts, strict=True)
            raise _Doubt("; ".join((found, *details)), " ".join(hints))
        return found

    def _sdk_login(self) -> str | None:
        return self._ask(log_in)

    def _ask_identity(self) -> str | None:
        identity = self._ask(fetch_identity)
        self._identity = identity or ""
        user = self._target.user
        if not identity or user in ("", identity):
            return identity
        self._groups = self._ask(fetch_groups) or frozenset()
        self._compare_with_identity(user)
        return f'{identity}, which logs in as a member of the group "{user}"'

    def _compare_with_identity(self, user: str) -> None:
        """Warn as the error of a login would if *user* is not the identity."""
        identity = self._identity
        if identity and user not in (identity, *self._groups):
            facts = self._target.facts(user=user, identity=identity)
            raise _Doubt(*words(table()["user-not-identity"], facts))

    def _endpoint(self) -> str | None:
        target = self._target
        endpoint = self._ask(lambda login: fetch_endpoint(login, target.endpoint))
        if endpoint is None:
            return None
        if endpoint.is_disabled:
            raise self._refused("endpoint-disabled")
        if target.host and endpoint.host and target.host != endpoint.host:
            raise _Doubt(
                f'its host is "{endpoint.host}", and HOST is "{target.host}"',
                "Remove HOST (PGHOST), or correct it, unless it is the endpoint's "
                "read-only host.",
            )
        resolve_host(target)
        kind = "read-write" if endpoint.is_read_write else "read-only"
        return f"{endpoint.state}, {kind}, {endpoint.host or 'no host yet'}"

    def _new_credential(self) -> str | None:
        target = self._target
        if target.is_native:
            return None
        credentials = access_to(target).credentials
        credential = ask_workspace(target, lambda: credentials.get(CALL_BOUND))
        if credentials.skew:
            raise _Doubt(f"clock skew: {credentials.skew}", table()["clock-skew"].mend)
        left = int(credential.left(utc_now()).total_seconds())
        return f"expires {credential.expires_at:%Y-%m-%d %H:%M:%S} UTC, in {left} s"

    def _tls(self) -> str | None:
        ladder = Ladder(self._target.connect_budget)
        host = resolve_host(self._target)
        if not host:
            return None
        user = resolve_user(self._target)
        params = {**self._wrapper.get_connection_params(), "host": host, "user": user}
        while True:
            try:
                return _described(shake_hands(self._target, params, ladder.left()))
            except psycopg.OperationalError as exc:
                failure = explain(exc, Source.SERVER, native=self._target.is_native)
                then, pause = ladder.next(failure.then)
                error = refusal(self._target, exc, failure, seen=exc, host=host)
            if then is not Then.WAIT:
                raise error
            time.sleep(pause)

    def _login(self) -> str:
        connection = self._connection = self._open()
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
        [(name, schema, may_create, path)] = self._execute(
            "SELECT current_database(), current_schema(), "
            "has_schema_privilege(current_user, current_schema(), 'CREATE'), "
            "current_setting('search_path')"
        )
        # None is also a schema that this role may not use.
        if schema is None and "public" in path:
            schema = "public"
        if schema is None:
            raise _Doubt(
                f'"{name}", where no schema of the search_path exists',
                'Create one, or correct the search_path (OPTIONS["options"], '
                "PGOPTIONS, or ALTER ROLE ... SET).",
            )
        if not may_create:
            user = resolve_user(self._target).replace('"', '""')
            escaped = schema.replace('"', '""')
            raise _Doubt(
                f'"{name}", where this role may not create tables in the schema '
                f'"{schema}"',
                "To migrate, run as the owner: GRANT USAGE, CREATE ON SCHEMA "
                f'"{escaped}" TO "{user}";',
            )
        return f'"{name}", may create tables in the schema "{schema}"'

    def _rotation(self) -> str | None:
        target = self._target
        if target.is_native:
            return None
        credentials = access_to(target).credentials
        second = ask_workspace(target, lambda: credentials.issue(CALL_BOUND))
        connection = self._open(second)
        lease = lease_of(connection)
        connection.close()
        if lease is None:
            raise LakebaseError("a connection without a credential")
        return f"a second credential logs in too, until {lease.expires_at:%H:%M:%S} UTC"

    def _ask(self, ask: Callable[[Login], T]) -> T | None:
        """Return what the workspace says, or None where it is not asked."""
        target, login = self._target, self._target.login
        if login is None:
            return None
        return ask_workspace(target, lambda: bounded(lambda: ask(login), CALL_BOUND))

    def _refused(self, failure_id: str) -> Explained:
        return refusal(self._target, RuntimeError(failure_id), table()[failure_id])

    def _open(self, credential: Credential | None = None) -> Connection:
        params = self._wrapper.get_connection_params()
        return Opening(
            self._target,
            {**params, "autocommit": True},
            lambda own: psycopg.connect(**own),
            credential=credential,
        ).run()

    def _execute(self, query: Query) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise LakebaseError("there is no connection")
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


def _described(handshake: Handshake) -> str:
    mode = handshake.sslmode
    return f"{handshake.version}, {handshake.verified} (sslmode={mode})"
