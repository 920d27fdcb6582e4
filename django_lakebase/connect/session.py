"""
Sessions that the server ended while they were idle, and what they held.

How it works. A session can be replaced by a new one only if nothing is lost with it.
So each cursor of an observed connection notes what the session has come to hold: a
*mark* such as "an advisory lock" or "SET". The command tag of the server's answer tells
most of it. What a tag cannot tell, the text of the statement does; a mark too many
costs a reopened session and nothing else, so the text is read generously.

Observation begins when Django has set up the connection and all receivers of
``connection_created`` have run: what they do is done again for a new session.

What a function of the database does to the session is not visible here.
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

from .connection import Connection, is_readable

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[Any]
else:
    # A mixin: it goes over the cursor class of the project.
    Cursor = object

TRANSACTION = "a transaction"
ADVISORY_LOCK = "an advisory lock"
TEMPORARY_TABLE = "a temporary table"

# Command tags that leave a mark. CALL and DO run code that may do any of the others.
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
# Command tags after which a transaction may have begun or ended without Django.
TRANSACTION_TAGS = {"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK"}
TAGS = TRANSACTION_TAGS.union(MARKING_TAGS)
_BLANKS = r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
# A SET that ends with the transaction.
_SET_LOCALLY = re.compile(_BLANKS + r"set\s+(?:local|transaction)\b")
# set_config(..., true) lasts for the transaction only.
_CONFIG_SET_LOCALLY = re.compile(r"set_config\s*\([^()]*,\s*true\s*\)")
_TEMPORARY = re.compile(
    r"\b(?:create|into)\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?temp(?:orary)?\s"
    r"|\bpg_temp\b"
)
# The commands in a text of several statements, whose tags a cursor does not all show.
_COMMANDS = re.compile(
    "(?:^|;)"
    + _BLANKS
    + r"(set|reset|discard|listen|begin|start|prepare|declare|load|do|call)\b"
    r"(?!\s+(?:local|transaction\s+(?:isolation|read)|constraints)\b)"
)


@dataclass(slots=True)
class _Session:
    """What is known of an observed session: its marks, and how it was at first."""

    characteristics: tuple[object, ...]
    marks: dict[str, None] = field(default_factory=dict)


_sessions: "weakref.WeakKeyDictionary[Connection, _Session]" = (
    weakref.WeakKeyDictionary()
)


def observe(connection: Connection) -> None:
    """Note from now on what the session of *connection* holds; nothing so far."""
    connection.cursor_factory = noting(connection.cursor_factory)
    connection.server_cursor_factory = noting(connection.server_cursor_factory)
    _sessions[connection] = _Session(_characteristics(connection))


def marks(connection: Connection) -> list[str]:
    """Return what the session of *connection* holds, oldest first."""
    session = _sessions[connection]
    has_changed = session.characteristics != _characteristics(connection)
    attributes = ["attributes of the connection"] if has_changed else []
    return [*session.marks, *attributes]


def may_be_lost(connection: Connection) -> bool:
    """
    Return whether an observed session has ended, or the server has sent something.

    No I/O: this is asked before each query.
    """
    if connection.closed:
        return _is_observed(connection)
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        _mark_transaction(connection)
        return False
    return is_readable(connection) and _is_observed(connection)


def is_lost(connection: Connection) -> bool:
    """
    Return whether the session has ended.

    A round trip where the server has sent something: it may be a notification, which
    psycopg keeps from version 3.2.4 on. Older ones lose it in any query.
    """
    if connection.pgconn.pipeline_status == PipelineStatus.OFF:
        with contextlib.suppress(psycopg.Error), connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    return connection.closed


class SessionCursor(Cursor):
    """Over a cursor class of psycopg's: notes what its statements leave behind."""

    __slots__ = ()

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute *query*, as psycopg does."""
        text = _text(query)
        _note_text(self, text)
        try:
            return super().execute(query, *args, **kwargs)
        finally:
            _note_tag(self, text)

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> None:
        """Execute *query* for many parameters, as psycopg does."""
        text = _text(query)
        _note_text(self, text)
        try:
            super().executemany(query, *args, **kwargs)
        finally:
            _note_tag(self, text)


class _EqualToExtended(type):
    """
    The type of noting cursor classes: each is equal to the class that it extends.

    ``connection.cursor_factory`` is public, and is compared with the class that the
    project has configured: Django's own tests do so.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or vars(cls).get("_extended") is other

    def __hash__(cls) -> int:
        extended = vars(cls).get("_extended")
        return type.__hash__(cls) if extended is None else hash(extended)


def noting(factory: Any) -> Any:
    """
    Return *factory* with cursors that note what they leave behind.

    What is not a plain class stays as it is, and its connections are not observed.
    """
    return _noting(factory) if type(factory) is type else factory


@functools.cache
def _noting(factory: type) -> type:
    namespace = {
        "__module__": factory.__module__,
        "__qualname__": factory.__qualname__,
        "__slots__": (),
        "_extended": factory,
    }
    return _EqualToExtended(factory.__name__, (SessionCursor, factory), namespace)


def _is_observed(connection: Connection) -> bool:
    factory: Any = connection.cursor_factory  # May be a function, its type says not.
    is_noting = isinstance(factory, type) and issubclass(factory, SessionCursor)
    return is_noting and connection in _sessions


def _characteristics(connection: Connection) -> tuple[object, ...]:
    # psycopg sends them with BEGIN: they are the connection's and not the server's.
    return connection.isolation_level, connection.read_only, connection.deferrable


def _mark(connection: Connection, mark: str) -> None:
    session = _sessions.get(connection)
    if session is not None:
        session.marks[mark] = None


def _mark_transaction(connection: Connection) -> None:
    """Mark a transaction that Django has not begun, or forget one that is over."""
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


def _note_text(cursor: SessionCursor, text: str) -> None:
    """Note what only the text tells; before it is sent, for it may half succeed."""
    if "advisory_lock" in text:
        _mark(cursor.connection, ADVISORY_LOCK)
    if "set_config" in text and "set_config" in _CONFIG_SET_LOCALLY.sub("", text):
        _mark(cursor.connection, "set_config")
    if "temp" in text and _TEMPORARY.search(text):
        _mark(cursor.connection, TEMPORARY_TABLE)


def _note_tag(cursor: SessionCursor, text: str) -> None:
    """Note what the command tag tells; where there is not one for all, the text."""
    tag = cursor.statusmessage
    if tag and ";" not in text:
        if tag in TAGS:
            _note_command(cursor.connection, tag, text)
        return
    # An error, a pipeline, or several statements, of whose tags this is the first.
    for command in _COMMANDS.findall(text):
        is_begin = command in ("begin", "start")
        _mark(cursor.connection, TRANSACTION if is_begin else command.upper())
    _mark_transaction(cursor.connection)


def _note_command(connection: Connection, tag: str, text: str) -> None:
    if tag in TRANSACTION_TAGS:
        _mark_transaction(connection)
    elif tag != "SET" or not _SET_LOCALLY.match(text):
        _mark(connection, MARKING_TAGS[tag])
