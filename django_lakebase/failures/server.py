"""
The table of failures: how each is recognised, what it means, how it is mended.

It is the single source of what the engine raises, what ``lakebase_check`` prints and
what docs/errors.md lists. psycopg reports a failed connect without an SQLSTATE, and
the service's gateways have words of their own, so a failure is told by its text.
Rows are tried from top to bottom: the first that matches speaks.
"""

from functools import partial

from .kinds import Failure, Source, Then
from .parsing import ENDPOINT_FORMAT

_settings = partial(Failure, source=Source.SETTINGS)
_workspace = partial(Failure, source=Source.WORKSPACE)
_server = partial(Failure, source=Source.SERVER)

CREATE_ROLE = (
    "CREATE EXTENSION IF NOT EXISTS databricks_auth; "
    "SELECT databricks_create_role('{user_in_sql}', '{user_type}');"
)
# What the old role owns goes over to the new one: dropping it would drop tables.
REPLACE_ROLE = (
    'ALTER ROLE "{user_ident}" RENAME TO "{user_ident} old"; '
    + CREATE_ROLE
    + ' GRANT "{user_ident}", "{user_ident} old" TO CURRENT_USER; '
    'REASSIGN OWNED BY "{user_ident} old" TO "{user_ident}";'
)

# What Django needs in order to migrate, as docs/howto/connect.md has it.
GRANT_SCHEMA = 'GRANT USAGE, CREATE ON SCHEMA public TO "{user_ident}";'
THEN_GRANT = (
    " Then, in the database: "
    'GRANT CONNECT, CREATE ON DATABASE "{database_ident}" TO "{user_ident}"; '
    + GRANT_SCHEMA
)

# What the server says of a user that is not the identity of the token.
NOT_THE_IDENTITY = (
    r"no role security label was configured|"
    r"token.*(does not match|is not).*(role|user|identity)"
)

FAILURES = (
    # Settings: found before any network call, raised as ImproperlyConfigured.
    _settings(
        id="endpoint-missing",
        means="no endpoint is named.",
        mend="Set ENDPOINT_NAME (or LAKEBASE_ENDPOINT, PGENDPOINT, "
        "LAKEBASE_AUTOSCALING_ENDPOINT), or "
        f'OPTIONS["endpoint"], to {ENDPOINT_FORMAT}.',
    ),
    _settings(
        id="host-without-endpoint",
        means='HOST is "{value}", and no endpoint is named for it: ENDPOINT_NAME is '
        "read only where HOST is empty or the same as PGHOST.",
        mend=f'Set OPTIONS["endpoint"] to {ENDPOINT_FORMAT}, the endpoint of that '
        "host; or remove HOST, so that the environment's endpoint applies.",
    ),
    _settings(
        id="endpoint-ambiguous",
        means="the environment names more than one endpoint: {given}.",
        mend='Unset all but one, or set OPTIONS["endpoint"].',
    ),
    _settings(
        id="endpoint-malformed",
        means='{name} is "{value}", which is not the name of an endpoint.',
        mend="The format is " + ENDPOINT_FORMAT + ".",
    ),
    _settings(
        id="value-invalid",
        means='{name} is "{value}": {problem}.',
        mend="{fix}",
    ),
    _settings(
        id="libpq-variable",
        means='{name} is "{value}", and {problem}.',
        mend="{fix}",
    ),
    _settings(
        id="sslmode-weak",
        means='{name} is "{value}": a token must not travel over a connection that '
        "may be unencrypted.",
        mend="Use require, verify-ca or verify-full, or remove it: require is the "
        "default.",
    ),
    _settings(
        id="workspace-invalid",
        means='OPTIONS["workspace"] {problem}.',
        mend="Give it a dict of arguments for the SDK's Config, such as "
        '{{"profile": "prod"}}, or the dotted path of a callable that returns a '
        "WorkspaceClient.",
    ),
    _settings(
        id="native-incomplete",
        means="{password_setting} asks for a native login, but {name} is not in the "
        "settings.",
        mend="Set {name} in the settings too, or remove {password_setting} to log in "
        "with a token.",
    ),
    _settings(
        id="host-socket",
        means='{name} is "{value}", a local socket: a token must not go there.',
        mend="Set it to the host that the project's Connect dialog shows, or remove it "
        "and the host is asked from the API.",
    ),
    _settings(
        id="budget-invalid",
        means='OPTIONS["connect_budget"] is {value}.',
        mend="It is a number of seconds above 0; the default is 20.",
    ),
    _settings(
        id="options-invalid",
        means="OPTIONS is a {kind}.",
        mend="It is a dict, such as {{}}; the engine needs no key in it.",
    ),
    _settings(
        id="hostaddr-invalid",
        means='{name} is "{value}", which is not an IP address.',
        mend="Remove it: the host's name is looked up then; or set it to the number "
        "that this machine should connect to.",
    ),
    _settings(
        id="port-invalid",
        means='{name} is "{value}".',
        mend="A port is a number from 1 to 65535; Lakebase listens on 5432.",
    ),
    _settings(
        id="pool-invalid",
        means='OPTIONS["pool"] is {value}.',
        mend="It is True, or a dict of arguments for psycopg_pool's ConnectionPool.",
    ),
    _settings(
        id="pool-age",
        means="Pooling doesn't support persistent connections.",
        mend='Set CONN_MAX_AGE to 0 or remove it: OPTIONS["pool"] keeps connections.',
    ),
    _settings(
        id="pool-package-missing",
        means='OPTIONS["pool"] is set, and psycopg_pool cannot be imported.',
        mend='Install it: pip install "psycopg[pool]".',
    ),
    _settings(
        id="pool-options",
        means='OPTIONS["pool"] holds what psycopg_pool.ConnectionPool does not take.',
        mend="Correct or remove the key that is named; True takes the defaults.",
    ),
    # The workspace: login of the SDK, identity, endpoint, credential.
    _workspace(
        id="sdk-missing",
        pattern=r"^(ImportError|ModuleNotFoundError): .*databricks",
        means="the databricks-sdk package cannot be imported.",
        mend='Install it in this environment: pip install "databricks-sdk>=0.89".',
    ),
    _workspace(
        id="unknown-profile",
        pattern=r"has no (?P<profile>.+?) profile configured",
        means="the SDK's configuration file has no such profile.",
        mend='Correct OPTIONS["workspace"]["profile"] or DATABRICKS_CONFIG_PROFILE, '
        "or add the profile: databricks auth login --profile NAME.",
    ),
    _workspace(
        id="profile-unreadable",
        means="the SDK's configuration file {file} cannot be read by this process.",
        mend="Let the user that runs this process read it, and pass through its "
        "directory; or set DATABRICKS_CONFIG_FILE to a file that it can read. HOME "
        "decides where ~ is.",
    ),
    _workspace(
        id="profile-incomplete",
        means='the profile "{profile}" of {file} {problem}.',
        mend="Add to the profile what is missing (host; client_id and client_secret, "
        "or token), or let the Databricks CLI write it: databricks auth login "
        "--profile {profile}.",
    ),
    _workspace(
        id="cli-missing",
        means="the login to the workspace by {method} needs the program {program}, "
        "which is not on the PATH of this process.",
        mend="Install it (the Databricks CLI is not the databricks-cli package of "
        "PyPI), or add its directory to PATH. Then log in, as the user that runs this "
        "process: {command}.",
    ),
    _workspace(
        id="cli-login",
        means="the login to the workspace by {method} failed: {path} gave no token.",
        mend="Log in again, as the user that runs this process: {command}. What the "
        "program said is quoted.",
    ),
    _workspace(
        id="ca-bundle-unusable",
        pattern=r"Could not find a suitable TLS CA certificate bundle|"
        r"no certificate or crl found|SSLError\((PermissionError|FileNotFoundError)",
        means="the file that REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names does not "
        "exist, cannot be read, or holds no certificate.",
        mend="Set REQUESTS_CA_BUNDLE to a PEM file with the certificate authorities to "
        "trust, or unset both variables to trust the public ones.",
    ),
    _workspace(
        id="api-ca-unknown",
        pattern=r"certificate verify failed: (self[- ]signed certificate|unable to get "
        r"(local )?issuer certificate|unable to verify the first certificate)",
        means="the certificate of {workspace} is signed by an authority that Python's "
        "requests does not trust, such as a company's own.",
        mend="Set REQUESTS_CA_BUNDLE to a PEM file that holds this authority, for "
        "example /etc/ssl/certs/ca-certificates.crt where curl succeeds. Without it, "
        "requests trusts the authorities of the certifi package only, and not those of "
        "the operating system.",
    ),
    _workspace(
        id="api-certificate",
        pattern=r"certificate verify failed",
        means="the certificate of {workspace} is not valid.",
        mend="Where the host name does not match, correct DATABRICKS_HOST. Where it "
        "has expired or is not valid yet, compare this machine's clock with the true "
        "time (timedatectl status).",
    ),
    _workspace(
        id="socks-missing",
        pattern=r"Missing dependencies for SOCKS support",
        means="a proxy variable (ALL_PROXY, HTTPS_PROXY) names a SOCKS proxy, and the "
        "package for it is not installed.",
        mend='Install it: pip install "requests[socks]"; or add the host of '
        "{workspace} to NO_PROXY to go there without a proxy.",
    ),
    _workspace(
        id="ambiguous-login",
        pattern=r"more than one authorization method configured",
        means="the environment holds two ways to log in to the workspace.",
        mend="Unset one (DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID and "
        "DATABRICKS_CLIENT_SECRET), or choose with DATABRICKS_AUTH_TYPE.",
    ),
    _workspace(
        id="bad-client-secret",
        pattern=r"invalid_client|unauthorized_client|Client authentication failed",
        means="the workspace {workspace} refuses the client id with this secret.",
        mend="Make a new secret for the service principal (workspace settings, "
        "Identity and access, Service principals, Secrets) and set "
        "DATABRICKS_CLIENT_SECRET; check that DATABRICKS_CLIENT_ID is its application "
        "id and DATABRICKS_HOST its workspace.",
    ),
    _workspace(
        id="workspace-access-missing",
        pattern=r"API is disabled for users without|workspace[- ]access entitlement",
        means="the identity may log in to {workspace}, but lacks the entitlement "
        '"Workspace access".',
        mend="Let a workspace admin switch it on for the service principal "
        "(Identity and access, Service principals, Configurations). It takes effect "
        "within some minutes.",
    ),
    _workspace(
        id="ip-blocked",
        pattern=r"blocked by Databricks IP ACL|Unauthorized network access",
        means="{workspace} does not accept requests from this network address.",
        mend="Add the address to the workspace's IP access list, or go out through "
        "one that is on it.",
    ),
    _workspace(
        id="api-missing",
        pattern=r"No API found for",
        means="{workspace} knows nothing of Lakebase: its API is not there.",
        mend="Set DATABRICKS_HOST to the address of the project's workspace (not the "
        "account console's), in a region that has Lakebase.",
    ),
    _workspace(
        id="endpoint-not-found",
        pattern=r"^(NotFound|ResourceDoesNotExist): ",
        means="{workspace} knows no endpoint {endpoint}, or hides it from this "
        "identity.",
        mend="Correct {endpoint_setting}: the Connect dialog of the Lakebase project "
        "shows the name; check that DATABRICKS_HOST is the project's workspace.",
    ),
    _workspace(
        id="token-unaccepted",
        # The service answers 401 or 403 for a token that it no longer accepts.
        pattern=r"^Unauthenticated: |^PermissionDenied: .*(Invalid (access )?token|"
        r"(JWT|token) (has |is )?(expired|expiring)|token expired|ExpiredJwt)",
        means="{workspace} does not accept the login's token (expired or revoked).",
        mend="Renew DATABRICKS_TOKEN, log in again (databricks auth login), or set "
        "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET.",
    ),
    _workspace(
        id="scopes-missing",
        pattern=r"does not have required scopes",
        means="the token that logs in to {workspace} lacks a scope that this needs.",
        mend="Make a token with all scopes (all-apis), or log in with "
        "DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET.",
    ),
    _workspace(
        id="permission-missing",
        pattern=r"^PermissionDenied: ",
        means="{workspace} does not permit this identity to use {endpoint}.",
        mend="Grant the service principal CAN USE on the Lakebase project.",
    ),
    _workspace(
        id="api-throttled",
        pattern=r"^(TooManyRequests|ResourceExhausted|RequestLimitExceeded): |"
        r"rate_limited|^HTTPError: 429",
        means="{workspace} answers that it gets too many requests.",
        mend="It passes by itself. If it stays, fewer processes should start at the "
        "same moment.",
        then=Then.WAIT,
    ),
    _workspace(
        id="empty-credential",
        means="{workspace} answered the request for a credential without a token or "
        "without its expiry.",
        mend="Try again; if it stays, ask Databricks support with the time of the "
        "request.",
    ),
    _workspace(
        id="clock-skew",
        means="a credential made just now looks expired: {skew}.",
        mend="Set this machine's clock (timedatectl status; chronyc makestep).",
    ),
    _workspace(
        id="host-unknown",
        means="{endpoint} has no host name yet: its state is {state}.",
        mend="Wait until the endpoint is ready, or set HOST (PGHOST) to the host that "
        "the Connect dialog shows.",
        passing=True,
    ),
    _workspace(
        id="endpoint-read-only",
        means="{endpoint} is a read-only endpoint, and no HOST is set.",
        mend="Name the branch's read-write endpoint in {endpoint_setting}, or set HOST "
        "(PGHOST) to use the read-only one on purpose.",
    ),
    _workspace(
        id="identity-unknown",
        means="{workspace} does not say who this login is.",
        mend="Set USER (PGUSER) to the Postgres role: the service principal's "
        "application id, or your e-mail address.",
    ),
    _workspace(
        id="answer-unusable",
        pattern=r"^(JSONDecodeError|AttributeError|TypeError|KeyError): |"
        r"^InvalidJSONError|unable to parse response",
        means="what answers at {workspace} is not the workspace API.",
        mend="Check DATABRICKS_HOST, and whether a proxy or a login page answers in "
        "its place: curl {workspace_url}/oidc/.well-known/oauth-authorization-server "
        "must give JSON.",
        passing=True,
    ),
    _workspace(
        id="api-unreachable",
        pattern=r"^(ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|"
        r"Timeout|TimeoutError|OperationTimeout|ChunkedEncodingError|"
        r"TemporarilyUnavailable|DeadlineExceeded|InternalError|InvalidURL|"
        r"InvalidSchema|MissingSchema|HTTPError|LocationParseError): |"
        r"Max retries exceeded|Timed out after|Connection refused|"
        r"Connection aborted|Name or service not known|Invalid URL",
        means="the workspace API at {workspace} cannot be reached or gives no usable "
        "answer.",
        mend="Check DATABRICKS_HOST, this machine's name resolution and its way out "
        "(proxy, firewall): curl {workspace_url}/oidc/.well-known/oauth-authorization-"
        "server must answer.",
        then=Then.WAIT_BRIEFLY,
    ),
    _workspace(
        id="no-login",
        pattern=r"cannot configure default credentials|not configured|auth: ",
        means="the SDK found no way to log in to a workspace.",
        mend="Set DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, "
        'or a profile in OPTIONS["workspace"] or DATABRICKS_CONFIG_PROFILE.',
    ),
    # The server: gateways and PostgreSQL, at login.
    _server(
        id="role-missing",
        pattern=r'role "[^"]*" does not exist',
        native=False,
        means='Postgres has no role "{user}" on {endpoint}.',
        mend="As the project's owner, in the branch of the endpoint, run: "
        + CREATE_ROLE
        + THEN_GRANT,
    ),
    _server(
        id="user-not-identity",
        means='"{user}" (from {user_setting}) is not the identity that logs in to the '
        'workspace, "{identity}".',
        mend='Set {identity_setting} to "{identity}".',
    ),
    _server(
        id="wrong-user",
        pattern=NOT_THE_IDENTITY,
        native=False,
        means='"{user}" is not the identity that the token was issued to, or its role '
        "was made by CREATE ROLE and takes no tokens.",
        mend="Set USER (PGUSER) to the identity that logs in to the workspace (the "
        "service principal's application id), or remove it. If it is right, "
        "replace the role: as the project's owner, run: " + REPLACE_ROLE + THEN_GRANT,
    ),
    _server(
        id="token-expired",
        pattern=r"token (has )?expired",
        native=False,
        means='the server found the token of "{user}" expired, also one made just now.',
        mend="If it stays, compare this machine's clock with the true time "
        "(timedatectl status).",
        then=Then.RENEW,
    ),
    _server(
        id="token-early",
        pattern=r"JWT token is not yet ready",
        means='the server finds a token of "{user}", made just now, not valid yet.',
        mend="It passes within seconds: the service's own clocks differ. If it stays, "
        "ask Databricks support with the time of the login.",
        then=Then.WAIT_BRIEFLY,
    ),
    _server(
        id="password-is-token",
        pattern=r"token (has )?expired|signature error|signature algorithm|"
        r"jwk not found|missing key id|invalid JWT token|" + NOT_THE_IDENTITY,
        native=True,
        means="{password_setting} holds a Databricks token or secret, not the password "
        "of a Postgres role; a token works for an hour at most.",
        mend='Remove {password_setting} and set OPTIONS["endpoint"] to '
        + ENDPOINT_FORMAT
        + ": the engine then fetches tokens itself and replaces them in time.",
    ),
    _server(
        id="password-refused",
        pattern=r"password authentication failed|not a valid JWT|"
        r"Failed to decode token|SASL authentication failed|password supplied|"
        r'role "[^"]*" does not exist',
        native=True,
        means='the server rejected the password for "{user}" in {password_setting}.',
        mend="Correct USER and {password_setting}, and check that native login is "
        "enabled for the project. If the role is missing, run as the project's owner: "
        """CREATE ROLE "{user_ident}" LOGIN PASSWORD '...'; Or remove """
        "{password_setting} to log in with a token.",
    ),
    _server(
        id="pooled-host",
        pattern=r"SASL authentication failed",
        native=False,
        means='"{host}" refused the way a token is sent, as pooled hosts do.',
        mend="Set HOST (PGHOST) to the endpoint's direct host (without -pooler), or "
        'remove it: the pooler serves native passwords only. OPTIONS["pool"] gives a '
        "pool that renews tokens.",
    ),
    _server(
        id="token-refused",
        pattern=r"not a valid JWT|password authentication failed|"
        r"Failed to decode token|signature error|signature algorithm|jwk not found|"
        r"missing key id|invalid JWT token",
        native=False,
        means='the server refused "{user}" twice, the second time with a token made '
        "just now.",
        mend="If that is the identity of the login (else correct USER, PGUSER), its "
        "role is probably missing, or takes no tokens. As the project's owner, in the "
        "branch of {endpoint}, run: " + CREATE_ROLE,
        then=Then.RENEW,
    ),
    _server(
        id="address-refused",
        pattern=r"blocked by Databricks IP ACL|IP address .* is not allowed",
        means="the gateway does not accept connections from this network address.",
        mend="Add the address to the workspace's IP access list, or go out through "
        "one that is on it.",
    ),
    _server(
        id="external-authorization",
        pattern=r"External authorization failed",
        means="the gateway would not let the connection through to {endpoint}.",
        mend="Three things cause it: the branch was made a moment ago (wait), the "
        "instance is paused (resume it), or an IP access list or private link keeps "
        "this address out (ask the workspace admin).",
        then=Then.WAIT_BRIEFLY,
    ),
    _server(
        id="endpoint-disabled",
        pattern=r"endpoint is disabled",
        means="{endpoint} is disabled, so a connection cannot wake it.",
        mend="Enable it in the Lakebase project (branch, Computes, Edit).",
    ),
    _server(
        id="wrong-host",
        pattern=r"endpoint cannot be found|failed to resolve host .*"
        r"(Name or service not known|No address associated|nodename nor servname|"
        r"label (empty or )?too long|Errno -2|Errno -5)|could not translate host name|"
        r"does not have SNI|Endpoint ID is not specified|could not parse network "
        r"address",
        means='"{host}" is not the host of a Lakebase endpoint.',
        mend="Correct HOST (PGHOST): the Connect dialog of the project shows it; or "
        "remove it if the login is by token: the engine then asks the API for the "
        "endpoint's host.",
    ),
    _server(
        id="database-missing",
        pattern=r'database "[^"]*" does not exist',
        means='there is no database "{database}" on {endpoint}.',
        mend="Correct NAME (PGDATABASE), or create it: the project's own database is "
        "databricks_postgres.",
    ),
    _server(
        id="too-many-connections",
        pattern=r"too many (clients|connections) (already|for)|"
        r"remaining connection slots|Too many connections to this endpoint",
        means="all connections of {endpoint} are in use.",
        mend="Lower the number of processes, threads or pool sizes (SELECT count(*) "
        "FROM pg_stat_activity), or give the endpoint more compute.",
    ),
    _server(
        id="pool-exhausted",
        means="all connections of this process's pool are in use, and none came back "
        "within {waited} s.",
        mend='Raise OPTIONS["pool"]["max_size"], or hold connections for a shorter '
        "time: long transactions, slow queries, requests that wait for others. Threads "
        "that the project starts must end with connection.close() or "
        "close_old_connections(): else they may keep their connection.",
        passing=True,
    ),
    _server(
        id="permission-denied",
        pattern=r"permission denied for database|is not permitted to log in",
        means='"{user}" may not connect to the database "{database}".',
        mend="As the database's owner, run: GRANT CONNECT ON DATABASE "
        '"{database_ident}" TO "{user_ident}"; or, if the role may not log in at all, '
        'ALTER ROLE "{user_ident}" LOGIN.',
    ),
    _server(
        id="channel-binding",
        pattern=r"channel binding required",
        means="channel binding is required, and the server offers none for this login.",
        mend='Remove OPTIONS["channel_binding"] (PGCHANNELBINDING), or set it to '
        "prefer.",
    ),
    _server(
        id="tls-refused",
        pattern=r"certificate verify failed|server certificate for|"
        r"root certificate file|certificate (file|present)|does not support SSL|"
        r"SSL was required|Invalid protocol version|Insecure connection|"
        r"connection is insecure|SSL error(?!: unexpected eof)|sslrootcert|"
        r"sslmode value|invalid response to SSL negotiation",
        means='the TLS handshake with "{host}" failed.',
        mend="Check OPTIONS sslmode (PGSSLMODE) and sslrootcert (PGSSLROOTCERT): "
        "verify-full needs the file of the CA that signed the server's certificate, "
        "or sslrootcert=system for the public ones.",
    ),
    _server(
        id="option-unknown",
        pattern=r"invalid connection option|unexpected keyword argument",
        means="OPTIONS holds a key that neither Django, libpq nor django_lakebase "
        "knows.",
        mend="Correct or remove the key that is named; manage.py check suggests the "
        "nearest one.",
    ),
    _server(
        id="setup-failed",
        means="a new connection could not be set up after the login.",
        mend='Check OPTIONS["assume_role"] (the role must exist, and "{user}" be a '
        "member of it) and TIME_ZONE.",
    ),
    _server(
        id="endpoint-unavailable",
        pattern=r"endpoint is temporarily unavailable",
        means="{endpoint} was not made available within {budget} s.",
        mend="Check the quotas of the workspace (computes that run at once) and the "
        "endpoint's state; suspend an endpoint that nobody uses.",
        then=Then.WAIT,
    ),
    _server(
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
        means="{host}:{port} gave no connection within {budget} s: {endpoint} is still "
        "starting, restarting, or cannot be reached from here.",
        mend='Raise OPTIONS["connect_budget"] or switch scale to zero off if starting '
        "takes longer; otherwise check the endpoint's state and the way to "
        "{host}:{port}.",
        then=Then.WAIT,
    ),
    _server(
        id="session-lost",
        means="the server has ended the session of this connection, which held state "
        "that a new session does not have: {lost}.",
        mend="Call connection.close(), as close_old_connections() does, and start the "
        "work over: the connection stays unusable until then. State that every session "
        "needs belongs in a receiver of connection_created, which sets it again "
        "without this error.",
    ),
    _server(
        id="unexplained",
        means="{host} refused the connection for a reason that is not in our table.",
        mend="What it said is quoted; run manage.py lakebase_check to see how far a "
        "connection gets.",
        then=Then.PROBE,
    ),
    # The server, after the login: when a test database is to be made.
    _server(
        id="createdb-missing",
        pattern=r"permission denied to create database",
        means='"{user}" may not create databases, so the test database "{name}" cannot '
        "be made.",
        mend='As the project\'s owner, run: ALTER ROLE "{user_ident}" CREATEDB; Or let '
        'the owner run CREATE DATABASE "{name_ident}"; and in it '
        + GRANT_SCHEMA
        + " and run the tests with --keepdb, in pytest --reuse-db. Or run them on a "
        "local Lakebase: lakebase-local run -- python manage.py test.",
    ),
    _server(
        id="template-denied",
        pattern=r"permission denied to copy database \"(?P<template>[^\"]*)\"",
        means='"{user}" may not copy the database "{template}" to make the test '
        'database "{name}".',
        mend="A role may copy its own databases, and templates. As the owner of "
        '"{template}", run: ALTER DATABASE "{template_ident}" IS_TEMPLATE true;',
    ),
    _workspace(
        id="workspace-unexplained",
        means="{workspace} gave no credential for a reason that is not in our table.",
        mend="What it said is quoted; run manage.py lakebase_check to see how far a "
        "login gets.",
    ),
)
