"""
Failures that the gateway or PostgreSQL reports, at login and afterwards.

SQL in hints is meant to be copied; its placeholders are escaped (see render.py).
"""

from functools import partial

from django_lakebase.failures.failure import Action, Failure, Source

from .settings import ENDPOINT_FORMAT

_row = partial(Failure, source=Source.SERVER)

CREATE_ROLE = (
    "CREATE EXTENSION IF NOT EXISTS databricks_auth; "
    "SELECT databricks_create_role('{user_in_sql}', '{user_type}');"
)
# The old role is renamed, and the new one takes over its objects: dropping the old role
# would drop its tables.
REPLACE_ROLE = (
    'ALTER ROLE "{user_ident}" RENAME TO "{user_ident} old"; '
    + CREATE_ROLE
    + ' GRANT "{user_ident}", "{user_ident} old" TO CURRENT_USER; '
    'REASSIGN OWNED BY "{user_ident} old" TO "{user_ident}";'
)

# The privileges that Django needs for migrations, as in docs/howto/connect.md.
GRANT_SCHEMA = 'GRANT USAGE, CREATE ON SCHEMA public TO "{user_ident}";'
THEN_GRANT = (
    " Then, in the database: "
    'GRANT CONNECT, CREATE ON DATABASE "{database_ident}" TO "{user_ident}"; '
    + GRANT_SCHEMA
)

# Messages of the server for a user that is not the identity of the token.
NOT_THE_IDENTITY = (
    r"no role security label was configured|"
    r"token.*(does not match|is not).*(role|user|identity)"
)

SERVER_FAILURES = (
    _row(
        id="role-missing",
        pattern=r'role "[^"]*" does not exist',
        native=False,
        summary='the Postgres role "{user}" does not exist on {endpoint}.',
        hint=(
            "As the owner of the project, run manage.py lakebase_role create"
            ' {user_option} "{user}". Or, in the branch of the endpoint, run: '
            + CREATE_ROLE
            + THEN_GRANT
        ),
    ),
    _row(
        id="user-not-identity",
        summary=(
            '"{user}" (from {user_setting}) is not the identity that logs in to the '
            'workspace, "{identity}".'
        ),
        hint='Set {identity_setting} to "{identity}".',
    ),
    _row(
        id="wrong-user",
        pattern=NOT_THE_IDENTITY,
        native=False,
        summary=(
            '"{user}" is not the identity that the token was issued to, or its role was'
            " created by CREATE ROLE and does not accept tokens."
        ),
        hint=(
            "Set USER (PGUSER) to the identity that logs in to the workspace (the"
            " application id of the service principal), or remove it. If it is correct,"
            " replace the role. As the owner of the project, run: "
            + REPLACE_ROLE
            + THEN_GRANT
        ),
    ),
    _row(
        id="token-expired",
        pattern=r"token (has )?expired",
        native=False,
        summary=(
            'the server rejected the token for "{user}" as expired, and then rejected a'
            " newly issued one."
        ),
        hint="If it persists, check the clock of this machine (timedatectl status).",
        action=Action.REFRESH,
    ),
    _row(
        id="token-early",
        pattern=r"JWT token is not yet ready",
        summary=(
            'the server rejected a newly issued token for "{user}" as not valid yet.'
        ),
        hint=(
            "This clears within seconds: the clocks of the service's machines differ"
            " slightly. If it persists, contact Databricks support with the time of the"
            " login."
        ),
        action=Action.RETRY_BRIEFLY,
    ),
    _row(
        id="password-is-token",
        pattern=r"token (has )?expired|signature error|signature algorithm|"
        r"jwk not found|missing key id|invalid JWT token|" + NOT_THE_IDENTITY,
        native=True,
        summary=(
            "{password_setting} contains a Databricks token or secret, not the password"
            " of a Postgres role; a token works for at most an hour."
        ),
        hint=(
            'Remove {password_setting} and set OPTIONS["endpoint"] to '
            + ENDPOINT_FORMAT
            + ": the engine then fetches and refreshes tokens itself."
        ),
    ),
    _row(
        id="password-rejected",
        pattern=r"password authentication failed|not a valid JWT|"
        r"Failed to decode token|SASL authentication failed|password supplied|"
        r'role "[^"]*" does not exist',
        native=True,
        summary='the server rejected the password for "{user}" in {password_setting}.',
        hint=(
            "Correct USER and {password_setting}, and check that native login is"
            " enabled for the project. If the role does not exist, run as the owner of"
            " the project: "
            """CREATE ROLE "{user_ident}" LOGIN PASSWORD '...'; """
            "Or remove {password_setting} to log in with a token."
        ),
    ),
    _row(
        id="pooled-host",
        pattern=r"SASL authentication failed",
        native=False,
        summary=(
            '"{host}" rejected the login with a token, as the pooled hosts of the'
            " service do."
        ),
        hint=(
            "Set HOST (PGHOST) to the direct host of the endpoint (without -pooler), or"
            ' remove it: the pooler accepts only native passwords. OPTIONS["pool"]'
            " provides a pool that refreshes tokens."
        ),
    ),
    _row(
        id="token-rejected",
        pattern=r"not a valid JWT|password authentication failed|"
        r"Failed to decode token|signature error|signature algorithm|jwk not found|"
        r"missing key id|invalid JWT token",
        native=False,
        summary=(
            'the server rejected the login of "{user}" twice, the second time with a'
            " newly issued token."
        ),
        hint=(
            'If "{user}" is not the identity that logs in to the workspace, correct'
            " USER (PGUSER). Otherwise its role probably does not exist or does not"
            " accept tokens. As the owner of the project, in the branch of {endpoint},"
            " run: " + CREATE_ROLE
        ),
        action=Action.REFRESH,
    ),
    _row(
        id="address-rejected",
        pattern=r"blocked by Databricks IP ACL|IP address .* is not allowed",
        summary="the gateway does not accept connections from this IP address.",
        hint=(
            "Add the address to the IP access list of the workspace, or connect through"
            " an address on the list."
        ),
    ),
    _row(
        id="external-authorization",
        pattern=r"External authorization failed",
        summary="the gateway did not authorize the connection to {endpoint}.",
        hint=(
            "There are three possible causes: the branch was created moments ago (wait"
            " a few seconds), the endpoint is paused (resume it), or an IP access list"
            " or a private link blocks this address (ask a workspace admin)."
        ),
        action=Action.RETRY_BRIEFLY,
    ),
    _row(
        id="endpoint-disabled",
        pattern=r"endpoint is disabled",
        summary="{endpoint} is disabled, and a connection does not wake it.",
        hint="Enable it in the Lakebase project (branch, Computes, Edit).",
    ),
    _row(
        id="wrong-host",
        # Early versions of psycopg 3.2 report only the system's error.
        pattern=r"endpoint cannot be found|"
        r"(failed to resolve host .*|^\[Errno -?\d+\] )"
        r"(Name or service not known|No address associated|nodename nor servname|"
        r"label (empty or )?too long|Errno -2|Errno -5)|could not translate host name|"
        r"does not have SNI|Endpoint ID is not specified|could not parse network "
        r"address|server certificate for .* does not match host name",
        summary='"{host}" is not the host of a Lakebase endpoint.',
        hint=(
            "Correct {host_setting}: the Connect dialog of the project shows the host."
            " For a login with a token you can also remove it, and name the endpoint;"
            " the engine then gets the host of the endpoint from the API."
        ),
    ),
    _row(
        id="database-missing",
        pattern=r'database "[^"]*" does not exist',
        summary='the database "{database}" does not exist on {endpoint}.',
        hint=(
            "Correct NAME (PGDATABASE), or create the database. The default database of"
            " a project is databricks_postgres."
        ),
    ),
    _row(
        id="too-many-connections",
        pattern=r"too many (clients|connections) (already|for)|"
        r"remaining connection slots|Too many connections to this endpoint",
        summary="all connections of {endpoint} are in use.",
        hint=(
            "Reduce the number of processes or threads, or the pool sizes (SELECT"
            " count(*) FROM pg_stat_activity counts the connections), or give the"
            " endpoint more compute."
        ),
    ),
    _row(
        id="pool-exhausted",
        summary=(
            "all connections of this process's pool are in use, and none was returned"
            " within {waited} s."
        ),
        hint=(
            'Raise OPTIONS["pool"]["max_size"], or hold connections for a shorter time:'
            " look for long transactions, slow queries, and requests that wait for"
            " other services. Threads that the project starts must end with"
            " connection.close() or close_old_connections(); otherwise they may keep"
            " their connection."
        ),
        may_clear=True,
    ),
    _row(
        id="permission-denied",
        pattern=r"permission denied for database|is not permitted to log in",
        summary='"{user}" is not allowed to connect to the database "{database}".',
        hint=(
            "As the owner of the database, run: GRANT CONNECT ON DATABASE"
            ' "{database_ident}" TO "{user_ident}"; or, if the role is not allowed to'
            ' log in at all: ALTER ROLE "{user_ident}" LOGIN;'
        ),
    ),
    _row(
        id="channel-binding",
        pattern=r"channel binding required",
        summary=(
            "channel binding is required, but the server does not offer it for this"
            " login."
        ),
        hint=(
            'Remove OPTIONS["channel_binding"] (PGCHANNELBINDING), or set it to prefer.'
        ),
    ),
    _row(
        id="certificate-not-verified",
        pattern=r"certificate verify failed",
        summary='the certificate of "{host}" could not be verified.',
        hint=(
            'Set OPTIONS["sslrootcert"] (PGSSLROOTCERT) to the file of the CA that'
            " signed the server's certificate; without it, verify-full trusts the"
            ' public CAs. To connect without verification, set OPTIONS["sslmode"]'
            " (PGSSLMODE) to require and remove sslrootcert; any server that answers"
            " at this address is then trusted."
        ),
    ),
    _row(
        id="tls-failed",
        pattern=r"root certificate file|certificate (file|present)|"
        r"does not support SSL|"
        r"SSL was required|Invalid protocol version|Insecure connection|"
        r"connection is insecure|SSL error(?!: unexpected eof)|sslrootcert|"
        r"sslmode value|invalid response to SSL negotiation",
        summary='the TLS handshake with "{host}" failed.',
        hint=(
            "Check sslmode (PGSSLMODE) and sslrootcert (PGSSLROOTCERT) in OPTIONS:"
            " verify-full needs the file of the CA that signed the server's"
            " certificate, or sslrootcert=system for the public CAs. If"
            ' OPTIONS["sslnegotiation"] is direct, remove it: many servers do not'
            " support that."
        ),
    ),
    _row(
        id="option-unknown",
        pattern=r"invalid connection option|unexpected keyword argument",
        summary="OPTIONS has a key that Django, libpq and django_lakebase do not know.",
        hint=(
            "Correct or remove the key that the message names; manage.py check suggests"
            " the closest known key."
        ),
    ),
    _row(
        id="schema-missing",
        summary=(
            'the schema "{name}" does not exist in the database "{database}", and'
            ' "{user}" is not allowed to create it.'
        ),
        hint=(
            'Correct OPTIONS["schema"] (LAKEBASE_SCHEMA), or, as the owner of the'
            ' database, run: GRANT CREATE ON DATABASE "{database_ident}" TO'
            ' "{user_ident}";'
        ),
    ),
    _row(
        id="assume-role-missing",
        summary=(
            'the role "{name}" (OPTIONS["assume_role"]) does not exist, so the new'
            " connection cannot switch to it."
        ),
        hint=(
            'Correct OPTIONS["assume_role"]. Or, to create a role that owns the'
            " tables, have the owner of the database run manage.py lakebase_role create"
            ' {user_option} "{user}" --owner-role "{name}", or this SQL: CREATE ROLE'
            ' "{name_ident}" NOLOGIN; GRANT "{name_ident}" TO "{user_ident}"; Then'
            " lakebase_check --deploy says which privileges it needs."
        ),
    ),
    _row(
        id="assume-role-denied",
        summary=(
            '"{user}" may not switch to the role "{name}" (OPTIONS["assume_role"]),'
            " because it is not a member of it."
        ),
        hint=(
            'As the role that created "{name}", or one that has it WITH ADMIN OPTION,'
            ' run: GRANT "{name_ident}" TO "{user_ident}"{membership_options};'
        ),
    ),
    _row(
        id="setup-failed",
        summary="the login succeeded, but the new connection could not be set up.",
        hint='Check TIME_ZONE and OPTIONS["assume_role"].',
    ),
    _row(
        id="endpoint-unavailable",
        pattern=r"endpoint is temporarily unavailable",
        summary="{endpoint} did not become available within {budget} s.",
        hint=(
            "Check the state of the endpoint, and the quotas of the workspace"
            " (concurrent computes); suspend endpoints that are not in use."
        ),
        action=Action.RETRY,
    ),
    _row(
        id="waking",
        pattern=r"the database system is (starting up|shutting down|in recovery)|"
        r"Connection refused|Connection reset|reset by peer|server closed the "
        r"connection unexpectedly|SSL SYSCALL|SSL connection has been closed|"
        r"unexpected eof|timeout expired|Connection timed out|timed out|"
        r"Couldn't connect to compute|Failed to acquire permit|"
        r"Too many connections attempts|temporarily unavailable|Temporary failure|"
        r"terminating connection|handshake timeout|Authentication timed out|"
        r"Invalid upstream handshake|Control plane request failed|"
        r"could not (receive data|send)|Network is unreachable|No route to host|"
        r"connection to server .* was (lost|aborted)|is idle, retry",
        summary=(
            "{host}:{port} accepted no connection within {budget} s: {endpoint} is"
            " still starting or restarting, or this machine cannot reach it."
        ),
        hint=(
            'If starting takes longer, raise OPTIONS["connect_budget"] or disable scale'
            " to zero. Otherwise check the state of the endpoint and the network path"
            " to {host}:{port}."
        ),
        action=Action.RETRY,
    ),
    _row(
        id="session-lost",
        summary=(
            "the server ended the session of this connection, which had state that a"
            " new session would not have: {lost}."
        ),
        hint=(
            "The connection is unusable until you call connection.close() (or"
            " close_old_connections()): call it, and start the work again. To avoid"
            " this error for state that every session needs, set that state in a"
            " receiver of connection_created, which runs for each new session."
        ),
    ),
    _row(
        id="unexplained",
        summary=(
            "{host} rejected the connection for a reason that the engine does not"
            " recognise."
        ),
        hint=(
            "The error quotes the server's message. Run manage.py lakebase_check to see"
            " which step fails."
        ),
        action=Action.PROBE,
    ),
    # Reported by PostgreSQL after the login, while Django creates a test database.
    _row(
        id="createdb-missing",
        pattern=r"permission denied to create database",
        summary=(
            '"{user}" is not allowed to create databases, so the test database "{name}"'
            " cannot be created."
        ),
        hint=(
            'As the owner of the project, run: ALTER ROLE "{user_ident}" CREATEDB; Or'
            ' have the owner run CREATE DATABASE "{name_ident}"; then, in'
            " that database, "
            + GRANT_SCHEMA
            + " and run the tests with --keepdb (pytest: --reuse-db). Or run them on a"
            " local Lakebase: lakebase-local run -- python manage.py test."
        ),
    ),
    _row(
        id="template-denied",
        pattern=r"permission denied to copy database \"(?P<template>[^\"]*)\"",
        summary=(
            '"{user}" is not allowed to copy the database "{template}" to create the'
            ' test database "{name}".'
        ),
        hint=(
            "A role may copy its own databases and templates. As the owner of"
            ' "{template}", run: ALTER DATABASE "{template_ident}" IS_TEMPLATE true;'
        ),
    ),
    # Migrations.
    _row(
        id="schema-denied",
        pattern=r"permission denied for schema (?P<name>\S+)",
        summary=(
            '"{user}" is not allowed to use the schema "{name}", or to create tables in'
            " it."
        ),
        hint=(
            'If this is the schema "public" of a Databricks App, set OPTIONS["schema"]'
            " (LAKEBASE_SCHEMA) to auto: the app then has its own schema, which"
            " migrate creates. Otherwise, as the owner of the schema, run: GRANT"
            ' USAGE, CREATE ON SCHEMA "{name_ident}" TO "{user_ident}";'
        ),
    ),
    _row(
        id="owner-required",
        pattern=r"must be owner of (?P<kind>[a-z ]+?) (?P<name>\S+)$",
        summary=(
            'a migration changes the {kind} "{name}", but another role than "{user}"'
            " owns it."
        ),
        hint=(
            "Run manage.py lakebase_check --deploy, which names the owner and prints"
            " the SQL that changes it. So that several roles can migrate, run manage.py"
            " lakebase_role create with --owner-role, as the owner of the database."
        ),
    ),
    _row(
        id="privilege-denied",
        pattern=r"permission denied for (?P<kind>table|view|sequence) (?P<name>\S+)$",
        summary=(
            '"{user}" is not allowed to use the {kind} "{name}" of another role, as a'
            " migration requires."
        ),
        hint=(
            "Run manage.py lakebase_check --deploy, which prints the grants that are"
            ' missing, or run manage.py lakebase_role create for "{user}", as the owner'
            " of the database."
        ),
    ),
)
