"""Resolution of the login: the workspace that issues tokens, or a password."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any

from .pasted_values import clean, parse_workspace_host
from .sources import Sources, Value
from .target import Login

# The SDK's arguments that name the identity, and those that name the workspace.
LOGIN_ARGUMENTS = ("client_id", "client_secret", "token", "username", "auth_type")
HOST_ARGUMENTS = ("host", "profile", "azure_workspace_resource_id")
# The SDK reads variables with these prefixes.
LOGIN_VARIABLES = ("DATABRICKS_", "ARM_", "GOOGLE_", "ACTIONS_ID_TOKEN_")

# A database token (a JSON web token), which a server accepts for an hour.
_JWT = r"eyJ[\w-]+\.[\w-]+\.[\w-]+"
# A personal access token or a client secret, which only the API accepts.
_API_ONLY = r"(dapi|dose)[0-9a-f]{32,}(-\d+)?"
# A host with or without a port.
_ADDRESS = r"([^\s@/\[\]:]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?"
_HASH_KEY = secrets.token_bytes(32)


def resolve_login(sources: Sources) -> Login | None:
    """Return the login to the workspace, or None if there is a password."""
    if sources.password:
        return None
    workspace = sources.options.get("workspace", "")
    if workspace == "":
        return _login_of_environment(sources)
    if isinstance(workspace, str):
        name = f"the workspace of {workspace}()"
        return Login(_hashed(workspace), name, path=workspace.strip())
    if isinstance(workspace, Mapping) and workspace:
        return _login_of_arguments(sources, workspace)
    is_dict = isinstance(workspace, Mapping)
    problem = "is empty" if is_dict else f"is a {type(workspace).__name__}"
    raise sources.rejection("workspace-invalid", problem=problem)


def _login_of_environment(sources: Sources) -> Login:
    url = _workspace_url(sources, sources.variable("DATABRICKS_HOST"))
    values = {
        name: value
        for name, value in sources.environ.items()
        if name.startswith(LOGIN_VARIABLES)
    }
    profile = sources.variable("DATABRICKS_CONFIG_PROFILE").text or "DEFAULT"
    return Login(_hashed(values), url or f'the workspace of profile "{profile}"', url)


def _login_of_arguments(sources: Sources, workspace: Mapping[str, Any]) -> Login:
    arguments = {
        str(key): clean(value) if isinstance(value, str) else value
        for key, value in workspace.items()
    }
    identity_keys = [key for key in LOGIN_ARGUMENTS if arguments.get(key)]
    if identity_keys and not any(arguments.get(key) for key in HOST_ARGUMENTS):
        problem = (
            f"has {', '.join(identity_keys)} but no host, and DATABRICKS_HOST is not "
            "read for it, because it may name another workspace"
        )
        raise sources.rejection("workspace-invalid", problem=problem)
    host = Value(str(arguments.get("host") or ""), 'OPTIONS["workspace"]["host"]')
    url = _workspace_url(sources, host)
    name = f'the workspace of profile "{arguments.get("profile", "DEFAULT")}"'
    return Login(_hashed(arguments), url or name, url, arguments=arguments)


def _workspace_url(sources: Sources, host: Value) -> str:
    url, _ = parse_workspace_host(host.text)
    bare = url.removeprefix("https://").removeprefix("http://")
    if host and not re.fullmatch(_ADDRESS, bare):
        problem = "this is not the address of a workspace"
        fix = "Set it to the address of the workspace, https://<name>."
        raise sources.invalid(host, problem, fix)
    return url


def is_password_token(sources: Sources) -> bool:
    """Return whether the password is a token; reject one that cannot log in."""
    if not sources.password:
        return False
    text, name = clean(sources.password.text), sources.password.name
    is_token = re.fullmatch(_JWT, text) is not None
    needed = () if sources.option("service") else ("HOST", "USER")
    missing = [key for key in needed if not sources.setting(key)]
    if re.fullmatch(_API_ONLY, text) or (is_token and missing):
        raise sources.rejection("password-is-token", password_setting=name)
    if missing:
        raise sources.rejection(
            "native-incomplete", name=missing[0], password_setting=name
        )
    return is_token


def password_key(sources: Sources) -> str:
    """Return a hash of the password in the settings, or an empty string."""
    secret = sources.settings.get("PASSWORD") or sources.options.get("password")
    return _hashed(str(secret)) if secret else ""


def _hashed(value: object) -> str:
    """Return a hash of *value* that reveals nothing, because its key is random."""
    text = repr(sorted(value.items()) if isinstance(value, dict) else value)
    return hashlib.blake2b(text.encode(), key=_HASH_KEY, digest_size=16).hexdigest()
