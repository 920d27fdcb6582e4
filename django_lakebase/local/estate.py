"""
The estate: one project with its branch, endpoint, identities and secrets.

Made at random for each directory and kept in it, so that ``--data`` gives the same
names and secrets again.
"""

import json
import secrets
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .tokens import new_key

DOMAIN = "database.local-1.lakebase.test"
DATABASE = "databricks_postgres"
BRANCH = "production"
ENDPOINT = "primary"
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron")


def _words() -> str:
    return f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}-{secrets.token_hex(4)}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(kw_only=True)
class Estate:
    """Names and secrets; the secrets are in no repr."""

    project_id: str = field(default_factory=lambda: f"local-{secrets.token_hex(3)}")
    project_uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    branch_uid: str = field(default_factory=lambda: f"br-{_words()}")
    endpoint_uid: str = field(default_factory=lambda: f"ep-{_words()}")
    workspace_id: str = field(default_factory=lambda: str(secrets.randbelow(10**16)))
    created_at: str = field(default_factory=_now)
    owner: str = field(
        default_factory=lambda: f"owner-{secrets.token_hex(3)}@lakebase.test"
    )
    owner_token: str = field(
        default_factory=lambda: f"dapi{secrets.token_hex(16)}", repr=False
    )
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret: str = field(
        default_factory=lambda: f"dose{secrets.token_hex(16)}", repr=False
    )
    native_user: str = "native_user"
    native_password: str = field(
        default_factory=lambda: secrets.token_urlsafe(18), repr=False
    )
    signing_key: str = field(default_factory=new_key, repr=False)

    @property
    def project(self) -> str:
        """The project's resource name."""
        return f"projects/{self.project_id}"

    @property
    def branch(self) -> str:
        """The default branch's resource name."""
        return f"{self.project}/branches/{BRANCH}"

    @property
    def endpoint(self) -> str:
        """The read-write endpoint's resource name."""
        return f"{self.branch}/endpoints/{ENDPOINT}"

    @property
    def host(self) -> str:
        """The endpoint's host name; it does not resolve."""
        return f"{self.endpoint_uid}.{DOMAIN}"

    def as_project(self) -> dict[str, Any]:
        """Return the project as the API shows it."""
        return self._resource(
            self.project,
            self.project_uid,
            project_id=self.project_id,
            status={
                "project_id": self.project_id,
                "display_name": self.project_id,
                "default_branch": self.branch,
                "owner": self.owner,
                "enable_pg_native_login": True,
            },
        )

    def as_branch(self) -> dict[str, Any]:
        """Return the default branch as the API shows it."""
        return self._resource(
            self.branch,
            self.branch_uid,
            parent=self.project,
            branch_id=BRANCH,
            status={
                "branch_id": BRANCH,
                "current_state": "READY",
                "default": True,
                "is_protected": False,
            },
        )

    def as_endpoint(self, state: str) -> dict[str, Any]:
        """Return the endpoint as the API shows it, in *state*."""
        return self._resource(
            self.endpoint,
            self.endpoint_uid,
            parent=self.branch,
            endpoint_id=ENDPOINT,
            status={
                "endpoint_id": ENDPOINT,
                "endpoint_type": "ENDPOINT_TYPE_READ_WRITE",
                "current_state": state,
                "disabled": False,
                "settings": {},
                "autoscaling_limit_min_cu": 1,
                "autoscaling_limit_max_cu": 1,
                "suspend_timeout_duration": "86400s",
                "hosts": {"host": self.host},
            },
        )

    def _resource(self, name: str, uid: str, **fields: Any) -> dict[str, Any]:
        moments = {"create_time": self.created_at, "update_time": self.created_at}
        return {"name": name, "uid": uid, **moments, **fields}


def load(directory: Path) -> Estate:
    """Return the estate of *directory*, made if there is none."""
    file = directory / "estate.json"
    if file.exists():
        return Estate(**json.loads(file.read_text()))
    estate = Estate()
    file.touch(mode=0o600)
    file.write_text(json.dumps(asdict(estate)))
    return estate
