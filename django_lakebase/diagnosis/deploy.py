"""The steps of ``lakebase_check --deploy``, which follow those of the connection."""

from collections.abc import Callable

from .extensions import check_extensions
from .limits import check_limits
from .migrations import check_migrations
from .privileges import check_ownership, check_privileges
from .session import Session
from .step import Outcome
from .tables import check_replica_identity, check_row_security

# By id, in their order.
DEPLOY_STEPS: dict[str, Callable[[Session], Outcome]] = {
    "privileges": check_privileges,
    "ownership": check_ownership,
    "migrations": check_migrations,
    "extensions": check_extensions,
    "row-security": check_row_security,
    "limits": check_limits,
    "replica-identity": check_replica_identity,
}
