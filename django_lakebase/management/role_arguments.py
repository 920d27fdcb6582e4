"""The options of ``lakebase_role``, and the `Request` that they make."""

import uuid
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from functools import partial
from typing import Any

from django_lakebase.base import LakebaseMixin
from django_lakebase.roles.facts import Request
from django_lakebase.roles.project import project_tables
from django_lakebase.roles.statements import LONGEST_NAME

# PostgreSQL gives them another meaning.
RESERVED_NAMES = ("public", "none")


def _application_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ArgumentTypeError(
            f'"{text}" is not an application id, such as '
            "11111111-2222-4333-8444-555555555555."
        ) from None


def _email(text: str) -> str:
    if "@" not in text.strip("@"):
        raise ArgumentTypeError(f'"{text}" is not an e-mail address.')
    return _name(text)


def _name(text: str) -> str:
    # PostgreSQL would shorten longer names, and reserves others: GRANT to "public" is
    # for all roles, even with quotes. Pasted names may have spaces around them.
    text = text.strip()
    is_reserved = text in RESERVED_NAMES or text.startswith("pg_")
    if not 0 < len(text.encode()) <= LONGEST_NAME or is_reserved:
        raise ArgumentTypeError(f'"{text}" cannot be the name of a role.')
    return text


def _owner_role(text: str) -> str:
    # Empty means none, although OPTIONS["assume_role"] names one.
    return _name(text) if text.strip() else ""


def add_options_of_django(parser: ArgumentParser) -> None:
    """Accept Django's options after the action, too, where most people write them."""
    # Without a default, which would replace what was given before the action.
    add = partial(parser.add_argument, default=SUPPRESS, help=SUPPRESS)
    add("-v", "--verbosity", type=int, choices=(0, 1, 2, 3))
    add("--settings")
    add("--pythonpath")
    add("--traceback", action="store_true")
    add("--no-color", action="store_true")
    add("--force-color", action="store_true")


def add_common_options(parser: ArgumentParser) -> None:
    """Declare the option of all actions."""
    parser.add_argument(
        "--database",
        default="default",
        metavar="ALIAS",
        help='The alias to log in to; "default" by default.',
    )


def add_role_options(parser: ArgumentParser) -> None:
    """Declare the options that name the role and the owner role."""
    identity = parser.add_mutually_exclusive_group(required=True)
    for option, kind, metavar, text in (
        ("--service-principal", _application_id, "ID", "its application id"),
        ("--user", _email, "EMAIL", "a user of the workspace"),
        ("--group", _name, "NAME", "a group: its role is for all members"),
    ):
        identity.add_argument(option, type=kind, metavar=metavar, help=text)
    parser.add_argument(
        "--owner-role",
        type=_owner_role,
        metavar="NAME",
        help="The role that owns the tables and that all who migrate are members of. "
        'Default: OPTIONS["assume_role"]; "" for none.',
    )


def read_request(wrapper: LakebaseMixin, options: dict[str, Any]) -> Request:
    """Return the request in *options*, for the tables that the alias uses."""
    owner_role = options.get("owner_role")
    if owner_role is None:
        owner_role = wrapper.settings_dict["OPTIONS"].get("assume_role") or ""
    given = (
        ("SERVICE_PRINCIPAL", options.get("service_principal")),
        ("USER", options.get("user")),
        ("GROUP", options.get("group")),
    )
    identity_type, role = next((item for item in given if item[1]), ("", ""))
    return Request(
        role=role or "",
        identity_type=identity_type,
        owner_role=owner_role,
        is_read_only=options.get("read_only", False),
        plans_ahead=True,
        **project_tables(wrapper),
    )
