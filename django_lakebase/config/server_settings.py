"""
The server settings in the startup packet: schema, time limits, and OPTIONS["options"].

They need no round trip, and hold from a session's first statement.
"""

import re

from psycopg.sql import Identifier

from .pasted_values import parse_number
from .sources import Sources, Value

# The value of OPTIONS["schema"] for the name that templates for Databricks Apps use.
AUTO_SCHEMA = "auto"
# PostgreSQL truncates longer names (NAMEDATALEN), also in search_path.
MAX_NAME_BYTES = 63
# Options in seconds; the server's settings of the same name are in milliseconds.
TIME_LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout")
# The server stores milliseconds in a 32-bit integer.
MIN_SECONDS, MAX_SECONDS = 0.001, (2**31 - 1) / 1000


def server_setting(name: str, value: str) -> str:
    """Return *name* and *value* in the syntax of libpq's *options*."""
    return f"-c {name}=" + re.sub(r"([\\\s])", r"\\\1", value)


def resolve_schema(sources: Sources) -> str:
    """Return the name of the project's schema, or an empty string if none is set."""
    given = _given_schema(sources)
    if given.text == AUTO_SCHEMA:
        return _schema_of_app(sources, given)
    fix = f"Set {given.name} to the name of a schema, or remove it."
    if len(given.text.encode()) > MAX_NAME_BYTES:
        problem = f"a name can have at most {MAX_NAME_BYTES} bytes"
        raise sources.invalid(given, problem, fix)
    if given.text.startswith("pg_"):
        problem = "PostgreSQL reserves names that start with pg_"
        raise sources.invalid(given, problem, fix)
    if given.text == "$user":
        problem = "in a search path, this stands for the name of the role"
        raise sources.invalid(given, problem, fix)
    return given.text


def _given_schema(sources: Sources) -> Value:
    return sources.option_or_variable("schema", "LAKEBASE_SCHEMA")


def _schema_of_app(sources: Sources, given: Value) -> str:
    app, user = sources.variable("PGAPPNAME"), sources.variable("PGUSER")
    missing = [value.name for value in (app, user) if not value]
    if missing:
        problem = (
            "the name is composed of PGAPPNAME and PGUSER, and "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        )
        fix = (
            "Databricks Apps sets both variables for an app with a database resource. "
            f"Elsewhere, set {given.name} to the name of the schema."
        )
        raise sources.invalid(given, problem, fix)
    name = f"{app.text}_schema_{user.text.replace('-', '')}"
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def resolve_server_settings(sources: Sources, schema: str, *, is_pooled: bool) -> str:
    """
    Return libpq's *options*: the server settings in OPTIONS, then the engine's own.

    *is_pooled* is whether the host is a pooler.
    """
    options = sources.option_or_variable("options", "PGOPTIONS")
    settings = _own_settings(sources, schema)
    for name, value, _ in settings:
        # PostgreSQL also accepts the form --search-path=.
        if name in options.text.lower().replace("-", "_"):
            fix = f"Remove {name} from {options.name}, or remove {value.name}."
            raise sources.invalid(value, f"{options.name} also sets {name}", fix)
        if is_pooled:
            problem = f"the host is a pooler, which ignores the {name} of a connection"
            fix = (
                "Set HOST (PGHOST) to the direct host of the endpoint (without "
                f"-pooler). Or remove {value.name}, and set {name} with ALTER ROLE."
            )
            raise sources.invalid(value, problem, fix)
    own = [server_setting(name, text) for name, _, text in settings]
    return " ".join(filter(None, [options.text, *own]))


def _own_settings(sources: Sources, schema: str) -> list[tuple[str, Value, str]]:
    """Return name, source and text of each setting that the engine's options set."""
    settings = []
    if schema:
        source = _given_schema(sources)
        settings.append(("search_path", source, _search_path(schema)))
    for name in TIME_LIMITS:
        seconds = _time_limit(sources, name)
        if seconds is not None:
            source = Value(f"{seconds:g}", f'OPTIONS["{name}"]')
            settings.append((name, source, f"{round(seconds * 1000)}ms"))
    return settings


def _search_path(schema: str) -> str:
    quoted = Identifier(schema).as_string(None)
    # Extensions are in public.
    return quoted if schema == "public" else f"{quoted},public"


def _time_limit(sources: Sources, name: str) -> float | None:
    """Return a time limit in seconds; None if it is not set, 0 for no limit."""
    given = sources.options.get(name)
    if given is None or given == "":
        return None
    seconds = parse_number(given)
    # The server would round a shorter limit to 0, which means no limit.
    if seconds == 0 or (seconds and MIN_SECONDS <= seconds <= MAX_SECONDS):
        return seconds
    problem = "this is not a time limit in seconds"
    if seconds is not None and seconds > 0:
        problem = f"a time limit is from {MIN_SECONDS} to {MAX_SECONDS:.0f} seconds"
    fix = "Set it to a number of seconds, such as 30, or to 0 for no limit."
    raise sources.invalid(Value(str(given), f'OPTIONS["{name}"]'), problem, fix)
