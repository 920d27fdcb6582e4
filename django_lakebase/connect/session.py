"""
Session state: whether a session that was lost while idle can be replaced.

How it works. A session can be replaced only if no state is lost with it. Each cursor of
a tracked connection therefore records the state that its statements create, as a *mark*
such as "an advisory lock" or "SET". Most of it is known from the command tag in the
server's response, the rest from the text of the statement. An unnecessary mark only
means that a session is not replaced, so the text is matched broadly.

Tracking starts after Django has set up the connection and all receivers of
``connection_created`` have run, because those run again for a new session.

State that a database function creates is not detected.
"""

import contextlib
import functools
import re
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.sql import Composable

from .liveness import Connection, is_readable

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[Any]
else:
    # A mixin over the cursor class of the project.
    Cursor = object

TRANSACTION = "a transaction"
ADVISORY_LOCK = "an advisory lock"
TEMPORARY_TABLE = "a temporary table"

# Command tags that set a mark. CALL and DO run code that may do any of the others.
MARKING_TAGS = {
    "CALL": "CALL",
    "DECLARE CURSOR": "DECLARE",
    "DISCARD ALL": "DISCARD",
    "DO": "DO",
    "LISTEN": "LISTEN",
    "LOAD": "LOAD",
    "PREPARE": "PREPARE",
    "RESET": "RESET",
    "SET": "SET",
}
# Command tags after which a transaction may have started or ended without Django.
TRANSACTION_TAGS = {"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK"}
TAGS = TRANSACTION_TAGS.union(MARKING_TAGS)
_BLANKS = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
# A SET whose effect ends with the transaction.
_SET_LOCALLY = re.compile(_BLANKS + r"set\s+(?:local|transaction)\b")
# set_config(..., true) lasts only for the transaction.
_CONFIG_SET_LOCALLY = re.compile(r"set_config\s*\([^()]*,\s*true\s*\)")
_TEMPORARY = re.compile(
    r"\b(?:create|into)\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?temp(?:orary)?\s"
    r"|\bpg_temp\b"
)
# The commands in a text of several statements: a cursor does not show all their tags.
_COMMANDS = re.compile(
    "(?:^|;)"
    + _BLANKS
    + r"(set|reset|discard|listen|begin|start|prepare|declare|load|do|call)\b"
    r"(?!\s+(?:local|transaction\s+(?:isolation|read)|constraints)\b)"
)


@dataclass(slots=True)
class _Session:
    """A tracked session: its marks, and its characteristics at the start."""

    characteristics: tuple[object, ...]
    marks: dict[str, None] = field(default_factory=dict)


_sessions: "weakref.WeakKeyDictionary[Connection, _Session]" = (
    weakref.WeakKeyDictionary()
)


def track(connection: Connection) -> None:
    """Start tracking the session of *connection*, without marks."""
    connection.cursor_factory = tracking(connection.cursor_factory)
    connection.server_cursor_factory = tracking(connection.server_cursor_factory)
    _sessions[connection] = _Session(_characteristics(connection))


def marks(connection: Connection) -> list[str]:
    """Return the marks of the session of *connection*, oldest first."""
    session = _sessions[connection]
    has_changed = session.characteristics != _characteristics(connection)
    attributes = ["attributes of the connection"] if has_changed else []
    return [*session.marks, *attributes]


def may_be_lost(connection: Connection) -> bool:
    """
    Return whether a tracked session has ended, or the server has sent data.

    No I/O: this runs before each query.
    """
    if connection.closed:
        return _is_tracked(connection)
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        _mark_transaction(connection)
        return False
    return is_readable(connection) and _is_tracked(connection)


def is_lost(connection: Connection) -> bool:
    """
    Return whether the session has ended.

    Makes a round trip, because the data may be a notification. psycopg keeps it from
    version 3.2.4 on; older versions lose it in any query.
    """
    if connection.pgconn.pipeline_status == PipelineStatus.OFF:
        with contextlib.suppress(psycopg.Error), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    return connection.closed


class SessionCursor(Cursor):
    """A mixin for psycopg's cursor classes that marks what statements leave behind."""

    __slots__ = ()

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute *query*, as psycopg does."""
        text = _text(query)
        _mark_from_text(self, text)
        try:
            return super().execute(query, *args, **kwargs)
        finally:
            _mark_from_tag(self, text)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        """Execute *query* for many parameters, as psycopg does."""
        text = _text(query)
        _mark_from_text(self, text)
        try:
            super().executemany(query, *args, **kwargs)
        finally:
            _mark_from_tag(self, text)


class _EqualToExtended(type):
    """
    The type of tracking cursor classes: each equals the class that it extends.

    ``connection.cursor_factory`` is public: Django's own tests, for example, compare it
    with the class that the project has configured.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or vars(cls).get("_extended") is other

    def __hash__(cls) -> int:
        extended = vars(cls).get("_extended")
        return type.__hash__(cls) if extended is None else hash(extended)


def tracking(factory: Any) -> Any:
    """
    Return *factory* with cursors that mark what statements leave behind.

    Anything but a plain class is returned unchanged, and its connections are not
    tracked.
    """
    return _tracking(factory) if type(factory) is type else factory


@functools.cache
def _tracking(factory: type) -> type:
    namespace = {
        "__module__": factory.__module__,
        "__qualname__": factory.__qualname__,
        "__slots__": (),
        "_extended": factory,
    }
    return _EqualToExtended(factory.__name__, (SessionCursor, factory), namespace)


def _is_tracked(connection: Connection) -> bool:
    factory: Any = (
        connection.cursor_factory
    )  # May be a function, unlike its declared type.
    is_tracking = isinstance(factory, type) and issubclass(factory, SessionCursor)
    return is_tracking and connection in _sessions


def _characteristics(connection: Connection) -> tuple[object, ...]:
    # psycopg sends these with BEGIN: they belong to the connection, not the server.
    return connection.isolation_level, connection.read_only, connection.deferrable


def _mark(connection: Connection, mark: str) -> None:
    session = _sessions.get(connection)
    if session is not None:
        session.marks[mark] = None


def _mark_transaction(connection: Connection) -> None:
    """Mark a transaction that Django did not start; unmark it when it has ended."""
    session = _sessions.get(connection)
    if session is None or not connection.autocommit:
        return
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.IDLE:
        session.marks.pop(TRANSACTION, None)
    elif status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        session.marks[TRANSACTION] = None


def _text(query: Any) -> str:
    """Return *query* in lower case."""
    if isinstance(query, str):
        return query.lower()
    if isinstance(query, bytes):
        return query.decode("latin-1").lower()
    if isinstance(query, Composable):
        return query.as_string(None).lower()
    return repr(query).lower()  # A template string.


def _mark_from_text(cursor: SessionCursor, text: str) -> None:
    """Mark what only the text shows; before sending, because it may fail halfway."""
    if "advisory_lock" in text:
        _mark(cursor.connection, ADVISORY_LOCK)
    if "set_config" in text and "set_config" in _CONFIG_SET_LOCALLY.sub("", text):
        _mark(cursor.connection, "set_config")
    if "temp" in text and _TEMPORARY.search(text):
        _mark(cursor.connection, TEMPORARY_TABLE)


def _mark_from_tag(cursor: SessionCursor, text: str) -> None:
    """Mark what the command tag shows, or the text if no tag covers all of it."""
    tag = cursor.statusmessage
    if tag and ";" not in text:
        if tag in TAGS:
            _mark_from_command(cursor.connection, tag, text)
        return
    # An error, a pipeline, or several statements of which this is the first tag.
    for command in _COMMANDS.findall(text):
        is_begin = command in ("begin", "start")
        _mark(cursor.connection, TRANSACTION if is_begin else command.upper())
    _mark_transaction(cursor.connection)


def _mark_from_command(connection: Connection, tag: str, text: str) -> None:
    if tag in TRANSACTION_TAGS:
        _mark_transaction(connection)
    elif tag != "SET" or not _SET_LOCALLY.match(text):
        _mark(connection, MARKING_TAGS[tag])
