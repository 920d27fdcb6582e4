"""
Failures of the workspace: the SDK's login, and requests to the workspace API.

The texts that *pattern* searches start with the name of the exception's class.
"""

from functools import partial

from django_lakebase.failures.failure import Action, Failure, Source

from .settings import ENDPOINT_FORMAT

_row = partial(Failure, source=Source.WORKSPACE)

WORKSPACE_FAILURES = (
    _row(
        id="sdk-missing",
        pattern=r"^(ImportError|ModuleNotFoundError): .*databricks",
        summary="the databricks-sdk package cannot be imported.",
        hint='Install it in this environment: pip install "databricks-sdk>=0.89".',
    ),
    _row(
        id="unknown-profile",
        pattern=r"has no (?P<profile>.+?) profile configured",
        summary="the profile does not exist in the SDK's configuration file.",
        hint=(
            'Correct OPTIONS["workspace"]["profile"] or DATABRICKS_CONFIG_PROFILE, or'
            " create the profile: databricks auth login --profile NAME."
        ),
    ),
    _row(
        id="profile-unreadable",
        summary="this process cannot read the SDK's configuration file {file}.",
        hint=(
            "Give the user that runs this process read access to the file and its"
            " directory, or set DATABRICKS_CONFIG_FILE to a readable file. In a path, ~"
            " is the HOME of that user."
        ),
    ),
    _row(
        id="profile-incomplete",
        summary='the profile "{profile}" of {file} {problem}.',
        hint=(
            "Add the missing keys to the profile (host; client_id and client_secret, or"
            " token), or let the Databricks CLI write it: databricks auth login"
            " --profile {profile}."
        ),
    ),
    _row(
        id="cli-missing",
        summary=(
            "the {method} login to the workspace needs the program {program}, which is"
            " not on the PATH of this process."
        ),
        hint=(
            "Install it (the Databricks CLI is not the databricks-cli package on PyPI),"
            " or add its directory to PATH. Then log in as the user that runs this"
            " process: {command}."
        ),
    ),
    _row(
        id="cli-login",
        summary="the {method} login to the workspace failed: {path} returned no token.",
        hint=(
            "Log in again as the user that runs this process: {command}. The error"
            " quotes the output of the program."
        ),
    ),
    _row(
        id="ca-bundle-unusable",
        pattern=r"Could not find a suitable TLS CA certificate bundle|"
        r"no certificate or crl found|SSLError\((PermissionError|FileNotFoundError)",
        summary=(
            "the file named by REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE does not exist, is"
            " not readable, or contains no certificate."
        ),
        hint=(
            "Set REQUESTS_CA_BUNDLE to a PEM file with the certificate authorities to"
            " trust, or unset both variables to trust the public ones."
        ),
    ),
    _row(
        id="api-ca-unknown",
        pattern=r"certificate verify failed: (self[- ]signed certificate|unable to get "
        r"(local )?issuer certificate|unable to verify the first certificate)",
        summary=(
            "the certificate of {workspace} is signed by an authority that Python's"
            " requests does not trust, such as a company's internal CA."
        ),
        hint=(
            "Set REQUESTS_CA_BUNDLE to a PEM file that contains this authority, for"
            " example /etc/ssl/certs/ca-certificates.crt if curl succeeds. By default"
            " requests trusts only the authorities in the certifi package, not those of"
            " the operating system."
        ),
    ),
    _row(
        id="api-certificate",
        pattern=r"certificate verify failed",
        summary="the certificate of {workspace} is not valid.",
        hint=(
            "If the host name does not match, correct DATABRICKS_HOST. If the"
            " certificate has expired or is not valid yet, check the clock of this"
            " machine (timedatectl status)."
        ),
    ),
    _row(
        id="socks-missing",
        pattern=r"Missing dependencies for SOCKS support",
        summary=(
            "a proxy variable (ALL_PROXY, HTTPS_PROXY) names a SOCKS proxy, but the"
            " package for SOCKS is not installed."
        ),
        hint=(
            'Install it: pip install "requests[socks]"; or add the host of {workspace}'
            " to NO_PROXY to bypass the proxy."
        ),
    ),
    _row(
        id="ambiguous-login",
        pattern=r"more than one authorization method configured",
        summary="more than one way to log in to the workspace is configured.",
        hint=(
            "In the environment, unset one (DATABRICKS_TOKEN, or DATABRICKS_CLIENT_ID"
            " and DATABRICKS_CLIENT_SECRET), or choose one with DATABRICKS_AUTH_TYPE;"
            ' in OPTIONS["workspace"], remove one (token, or client_id and'
            " client_secret), or choose one with auth_type."
        ),
    ),
    _row(
        id="bad-client-secret",
        pattern=r"invalid_client|unauthorized_client|Client authentication failed",
        summary="{workspace} rejected the client id and secret.",
        hint=(
            "Create a new secret for the service principal (workspace settings,"
            " Identity and access, Service principals, Secrets) and set"
            " DATABRICKS_CLIENT_SECRET. Check that DATABRICKS_CLIENT_ID is its"
            " application id and DATABRICKS_HOST its workspace."
        ),
    ),
    _row(
        id="workspace-access-missing",
        pattern=r"API is disabled for users without|workspace[- ]access entitlement",
        summary=(
            "the identity can log in to {workspace}, but it lacks the entitlement"
            ' "Workspace access".'
        ),
        hint=(
            "Ask a workspace admin to enable it for the service principal (Identity and"
            " access, Service principals, Configurations). The change takes effect"
            " within minutes."
        ),
    ),
    _row(
        id="ip-blocked",
        pattern=r"blocked by Databricks IP ACL|Unauthorized network access",
        summary="{workspace} does not accept requests from this IP address.",
        hint=(
            "Add the address to the IP access list of the workspace, or connect through"
            " an address on the list."
        ),
    ),
    _row(
        id="api-missing",
        pattern=r"No API found for",
        summary="{workspace} has no Lakebase API.",
        hint=(
            "Set DATABRICKS_HOST to the workspace of the project (not to the account"
            " console), in a region that offers Lakebase."
        ),
    ),
    _row(
        id="endpoint-not-found",
        pattern=r"^(NotFound|ResourceDoesNotExist): ",
        summary=(
            "{workspace} has no endpoint {endpoint}, or this identity may not see it."
        ),
        hint=(
            "Correct {endpoint_setting}: the Connect dialog of the Lakebase project"
            " shows the name. Check that DATABRICKS_HOST is the workspace of the"
            " project."
        ),
    ),
    _row(
        id="endpoint-not-found-for-host",
        summary=(
            "no endpoint that this identity can see in {workspace} has the host"
            ' "{host}" (from {host_setting}). {visible}'
        ),
        hint=(
            "Correct {host_setting}, or grant the identity CAN USE on the Lakebase"
            " project of that host (the database resource of a Databricks App does"
            " so). If the host is another name for an endpoint, set {endpoint_option}"
            f" to {ENDPOINT_FORMAT}."
        ),
    ),
    _row(
        id="endpoint-search-timeout",
        summary=(
            'the search for the endpoint of "{host}" (from {host_setting}) in'
            " {workspace} did not end within {budget} s."
        ),
        hint=(
            "Set {endpoint_option} to the name of the endpoint, which saves the search,"
            ' or raise OPTIONS["connect_budget"]. The search continues in this process,'
            " and later connections use its result. If it never ends, check that the"
            " workspace can be reached: run manage.py lakebase_check."
        ),
        action=Action.RETRY,
    ),
    _row(
        id="login-token-rejected",
        # The service responds with 401 or 403 to a token that it no longer accepts.
        pattern=r"^Unauthenticated: |^PermissionDenied: .*(Invalid (access )?token|"
        r"(JWT|token) (has |is )?(expired|expiring)|token expired|ExpiredJwt)",
        summary="{workspace} rejected the login token as expired or revoked.",
        hint=(
            "Replace DATABRICKS_TOKEN, log in again (databricks auth login), or set"
            " DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET."
        ),
    ),
    _row(
        id="scopes-missing",
        pattern=r"does not have required scopes",
        summary="the token for {workspace} lacks a scope that this request needs.",
        hint=(
            "Create a token with all scopes (all-apis), or log in with"
            " DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET."
        ),
    ),
    _row(
        id="permission-missing",
        pattern=r"^PermissionDenied: ",
        summary="this identity has no permission to use {endpoint} in {workspace}.",
        hint="Grant the service principal CAN USE on the Lakebase project.",
    ),
    _row(
        id="api-throttled",
        pattern=r"^(TooManyRequests|ResourceExhausted|RequestLimitExceeded): |"
        r"rate_limited|^HTTPError: 429",
        summary="{workspace} is rate limiting requests.",
        hint="This usually clears on its own. If it persists, stagger process startup.",
        action=Action.RETRY,
    ),
    _row(
        id="empty-credential",
        summary=(
            "{workspace} returned a credential without a token or without an expiry"
            " time."
        ),
        hint=(
            "Try again. If it persists, contact Databricks support with the time of the"
            " request."
        ),
    ),
    _row(
        id="clock-skew",
        summary="a newly issued credential already looks expired: {skew}.",
        hint=(
            "Correct the clock of this machine (timedatectl status; chronyc makestep)."
        ),
    ),
    _row(
        id="host-unknown",
        summary="{endpoint} has no host name yet; its state is {state}.",
        hint=(
            "Wait until the endpoint is ready, or set HOST (PGHOST) to the host that"
            " the Connect dialog shows."
        ),
        may_clear=True,
    ),
    _row(
        id="endpoint-read-only",
        summary="{endpoint} is a read-only endpoint, and HOST is not set.",
        hint=(
            "Set {endpoint_setting} to the read-write endpoint of the branch. If you"
            " want to use the read-only endpoint, set HOST (PGHOST) to its host."
        ),
    ),
    _row(
        id="identity-unknown",
        summary="{workspace} did not return the user name of this login.",
        hint=(
            "Set USER (PGUSER) to the Postgres role: the application id of the service"
            " principal, or your e-mail address."
        ),
    ),
    _row(
        id="response-unusable",
        pattern=r"^(JSONDecodeError|AttributeError|TypeError|KeyError): |"
        r"^InvalidJSONError|unable to parse response",
        summary="the server at {workspace} is not the workspace API.",
        hint=(
            "Check DATABRICKS_HOST, and whether a proxy or a login page answers"
            " instead: curl {workspace_url}/oidc/.well-known/oauth-authorization-server"
            " must return JSON."
        ),
        may_clear=True,
    ),
    _row(
        id="api-unreachable",
        pattern=r"^(ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|"
        r"Timeout|TimeoutError|OperationTimeout|ChunkedEncodingError|"
        r"TemporarilyUnavailable|DeadlineExceeded|InternalError|InvalidURL|"
        r"InvalidSchema|MissingSchema|HTTPError|LocationParseError): |"
        r"Max retries exceeded|Timed out after|Connection refused|"
        r"Connection aborted|Name or service not known|Invalid URL",
        summary=(
            "the workspace API at {workspace} cannot be reached or returned no usable"
            " response."
        ),
        hint=(
            "Check DATABRICKS_HOST, and the DNS, proxy and firewall of this machine:"
            " curl {workspace_url}/oidc/.well-known/oauth-authorization-server must"
            " return a response."
        ),
        action=Action.RETRY_BRIEFLY,
    ),
    _row(
        id="no-login",
        pattern=r"cannot configure default credentials|not configured|auth: ",
        summary="the SDK found no way to log in to a workspace.",
        hint=(
            "Set DATABRICKS_HOST, DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, "
            'or a profile in OPTIONS["workspace"] or DATABRICKS_CONFIG_PROFILE.'
        ),
    ),
    _row(
        id="workspace-unexplained",
        summary=(
            "a request to {workspace} failed for a reason that the engine does not"
            " recognise."
        ),
        hint=(
            "The error quotes the workspace's message. Run manage.py lakebase_check to"
            " see which step fails."
        ),
    ),
)
