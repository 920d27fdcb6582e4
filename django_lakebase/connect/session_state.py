"""
Session state: whether a session that was lost while idle can be replaced.

How it works. A session can be replaced only if no state is lost with it. Each cursor of
a tracked connection therefore records the state that its statements create, as a *mark*
such as "an advisory lock" or "SET". Most state shows in the command tag of the server's
response, the rest in the text of the statement. An unnecessary mark only prevents the
session from being replaced, so the text is matched broadly.

Tracking starts after Django has set up the connection and all receivers of
``connection_created`` have run, because both happen again for a new session.

Invariants. A session with marks is never replaced. Nothing here does I/O but the
statements of the program. There is no lock: only one thread at a time uses a
connection, and `_sessions` drops an entry with its connection.

Limits. State that a database function creates is not detected.
"""

import contextlib
import functools
import re
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
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

# By command tag: the mark. After the first four, a transaction may have started or
# ended, unknown to Django. CALL and DO run code that may do anything that others do.
MARKS = {
    "BEGIN": TRANSACTION,
    "START TRANSACTION": TRANSACTION,
    "COMMIT": TRANSACTION,
    "ROLLBACK": TRANSACTION,
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
_BLANKS = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
# The patterns are compiled at first use, because few programs run such statements.
# A SET whose effect ends with the transaction.
_SET_LOCALLY = _BLANKS + r"set\s+(?:local|transaction)\b"
# set_config(..., true) lasts only for the transaction.
_CONFIG_SET_LOCALLY = r"set_config\s*\([^()]*,\s*true\s*\)"
_TEMPORARY = (
    r"\b(?:create|into)\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?temp(?:orary)?\s"
    r"|\bpg_temp\b"
)
# The commands in a text of several statements, because a cursor shows only one tag.
_COMMANDS = (
    "(?:^|;)"
    + _BLANKS
    + r"(set|reset|discard|listen|begin|start|prepare|declare|load|do|call)\b"
    r"(?!\s+(?:local|transaction\s+(?:isolation|read)|constraints)\b)"
)


class _Session:
    """A tracked session: its marks in order, and its characteristics at the start."""

    def __init__(self, characteristics: tuple[object, ...]) -> None:
        self.characteristics = characteristics
        self.marks: dict[str, None] = {}


_sessions: "weakref.WeakKeyDictionary[Connection, _Session]" = (
    weakref.WeakKeyDictionary()
)


def track(connection: Connection) -> None:
    """Start tracking the session of *connection*, with no marks yet."""
    connection.cursor_factory = tracking_class(connection.cursor_factory)
    connection.server_cursor_factory = tracking_class(connection.server_cursor_factory)
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

    Makes no round trip, because this runs before each query.
    """
    if connection.closed:
        return _is_tracked(connection)
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        _mark_transaction(connection)
        return False
    return is_readable(connection) and _is_tracked(connection)


class SessionCursor(Cursor):
    """A mixin for psycopg's cursor classes; marks the state that statements create."""

    __slots__ = ()

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute *query* as psycopg does, and mark the state that it creates."""
        text = _mark_from_text(self, query)
        try:
            return super().execute(query, *args, **kwargs)
        finally:
            _mark_from_tag(self, text)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        """Execute *query* for each set of parameters, and mark the state it creates."""
        text = _mark_from_text(self, query)
        try:
            super().executemany(query, *args, **kwargs)
        finally:
            _mark_from_tag(self, text)

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the rows of *query* as they arrive, and mark the state it creates."""
        text = _mark_from_text(self, query)
        try:
            yield from super().stream(query, *args, **kwargs)
        finally:
            _mark_from_tag(self, text)

    @contextlib.contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Run the COPY in *statement*, and mark the state that it creates."""
        text = _mark_from_text(self, statement)
        try:
            with super().copy(statement, *args, **kwargs) as copy:
                yield copy
        finally:
            _mark_from_tag(self, text)


class _EqualToExtended(type):
    """
    The metaclass of tracking cursor classes: each is equal to the class it extends.

    ``connection.cursor_factory`` is public, and code compares it with the class that
    the project has configured. Django's own tests do so.
    """

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is vars(cls).get("_extended")

    def __hash__(cls) -> int:
        return type.__hash__(vars(cls).get("_extended", cls))


def tracking_class(factory: Any) -> Any:
    """
    Return a subclass of *factory* whose cursors mark the state that statements create.

    Returns *factory* unchanged if it is not a plain class; the sessions of its
    connections are then not tracked.
    """
    return _tracking_class(factory) if type(factory) is type else factory


@functools.cache
def _tracking_class(factory: type) -> type:
    namespace = {
        "__module__": factory.__module__,
        "__qualname__": factory.__qualname__,
        "__slots__": (),
        "_extended": factory,
    }
    return _EqualToExtended(factory.__name__, (SessionCursor, factory), namespace)


def _is_tracked(connection: Connection) -> bool:
    # May be a function, unlike its declared type.
    factory: Any = connection.cursor_factory
    is_tracking = isinstance(factory, type) and issubclass(factory, SessionCursor)
    return is_tracking and connection in _sessions


def _characteristics(connection: Connection) -> tuple[object, ...]:
    # psycopg sends these with BEGIN, so they are state of the connection object only.
    return connection.isolation_level, connection.read_only, connection.deferrable


def _mark(connection: Connection, mark: str) -> None:
    session = _sessions.get(connection)
    if session is not None:
        session.marks[mark] = None


def _mark_transaction(connection: Connection) -> None:
    """Mark a transaction that Django did not start; remove the mark when it ends."""
    session = _sessions.get(connection)
    if session is None or not connection.autocommit:
        return
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.IDLE:
        session.marks.pop(TRANSACTION, None)
    elif status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        session.marks[TRANSACTION] = None


def _text(query: Any) -> str:
    """Return the text of a *query* that is not a str."""
    if isinstance(query, bytes):
        return query.decode("latin-1")
    if isinstance(query, Composable):
        return query.as_string(None)
    return repr(query)  # A template string.


def _mark_from_text(cursor: SessionCursor, query: Any) -> str:
    """
    Mark the state that only the text of *query* shows; return the text in lower case.

    Runs before the statement is sent, because a statement that fails halfway may
    already have created state.
    """
    text = (query if isinstance(query, str) else _text(query)).lower()
    if "advisory_lock" in text:
        _mark(cursor.connection, ADVISORY_LOCK)
    if "set_config" in text and "set_config" in re.sub(_CONFIG_SET_LOCALLY, "", text):
        _mark(cursor.connection, "set_config")
    if "temp" in text and re.search(_TEMPORARY, text):
        _mark(cursor.connection, TEMPORARY_TABLE)
    return text


def _mark_from_tag(cursor: SessionCursor, text: str) -> None:
    """Mark the state that the command tag shows, or the text if a tag is not enough."""
    tag = cursor.statusmessage
    if not tag or ";" in text:
        # There was an error, a pipeline or a stream hides the tag, or there were
        # several statements, of which the cursor shows only the first tag.
        for command in re.findall(_COMMANDS, text):
            is_begin = command in ("begin", "start")
            _mark(cursor.connection, TRANSACTION if is_begin else command.upper())
        _mark_transaction(cursor.connection)
    elif tag in MARKS:
        if MARKS[tag] == TRANSACTION:
            _mark_transaction(cursor.connection)
        elif tag != "SET" or not re.match(_SET_LOCALLY, text):
            _mark(cursor.connection, MARKS[tag])
