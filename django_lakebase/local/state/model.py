"""
The state of the workspace as data: projects, branches, endpoints and secrets.

Names and secrets are generated once and saved in the data directory, so ``--data``
keeps them from run to run. Roles and databases are read from PostgreSQL; the state has
only their ids.
"""

import hashlib
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from django_lakebase.local.tokens import generate_key

DOMAIN = "database.local-1.lakebase.test"
DATABASE = "databricks_postgres"
BRANCH = "production"
ENDPOINT = "primary"
# The service's defaults for a new project, in seconds.
SUSPEND_AFTER = 86400.0
RETENTION = 604800.0
# Seconds after which a deleted resource can no longer be undeleted.
PURGE_AFTER = 604800.0
# Suffixes of an endpoint's uid in a host name, longest first.
SUFFIXES = ("-ro-pooler", "-pooler", "-ro", "")
# The group whose members are the owner, the developer and the service principal.
GROUP = "local-developers"
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron")


def _random_name() -> str:
    return f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}-{secrets.token_hex(4)}"


def _random_email(name: str) -> str:
    return f"{name}-{secrets.token_hex(3)}@lakebase.test"


def _random_access_token() -> str:
    return f"dapi{secrets.token_hex(16)}"


def get_scim_id(name: str) -> str:
    """
    Return the SCIM id of the identity or group *name*, the same in every process.

    ``databricks_create_role`` computes the same number with SQL.
    """
    return str(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))


@dataclass(kw_only=True)
class Resource:
    """The common fields of all resources; times are Unix timestamps."""

    id: str
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    deleted_at: float | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether the resource is deleted but not yet purged."""
        return self.deleted_at is not None

    def touch(self) -> None:
        """Set the time of the last update to now."""
        self.updated_at = time.time()


@dataclass(kw_only=True)
class Endpoint(Resource):
    """A compute of a branch or a group of computes; *suspend_after* 0 means never."""

    uid: str = field(default_factory=lambda: f"ep-{_random_name()}")
    is_read_write: bool = True
    is_disabled: bool = False
    is_suspended: bool = False
    suspend_after: float = SUSPEND_AFTER
    min_cu: float = 1.0
    max_cu: float = 1.0
    size: int = 1
    has_secondaries: bool = False
    pg_settings: dict[str, str] = field(default_factory=dict)
    active_at: float = field(default_factory=time.time)
    # The folder of its standby, if it has one.
    folder: str = field(default_factory=lambda: f"s-{secrets.token_hex(4)}")

    @property
    def has_standby(self) -> bool:
        """Whether the endpoint has its own server, a standby of the branch's server."""
        return not self.is_read_write or self.has_secondaries

    def host(self, suffix: str = "") -> str:
        """Return the host name of the endpoint, which DNS does not resolve."""
        return f"{self.uid}{suffix}.{DOMAIN}"


@dataclass(kw_only=True)
class Branch(Resource):
    """
    A branch, which has its own server.

    *parent* and *source* are the resource names of its project and of the branch that
    it is a copy of.
    """

    parent: str
    uid: str = field(default_factory=lambda: f"br-{_random_name()}")
    current_state: str = "INIT"
    state_changed_at: float = field(default_factory=time.time)
    is_default: bool = False
    is_protected: bool = False
    source: str = ""
    source_lsn: str = ""
    expires_at: float | None = None
    # Logins are rejected until then, as on a new branch of the service.
    accepts_logins_at: float = 0.0
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    # PostgreSQL names by the id that the API gave, and generated passwords by role.
    roles: dict[str, str] = field(default_factory=dict)
    databases: dict[str, str] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{self.parent}/branches/{self.id}"

    @property
    def folder(self) -> str:
        """The folder of the branch's server."""
        return f"b-{self.uid.rpartition('-')[2]}"

    def set_state(self, state: str) -> None:
        """Set the state and the time of the change."""
        self.current_state, self.state_changed_at = state, time.time()


@dataclass(kw_only=True)
class Project(Resource):
    """A project and its branches."""

    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    display_name: str = ""
    owner: str
    pg_version: int
    has_native_login: bool = False
    retention: float = RETENTION
    suspend_after: float = SUSPEND_AFTER
    branches: dict[str, Branch] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The resource name."""
        return f"projects/{self.id}"

    @property
    def default_branch(self) -> Branch:
        """The branch that was created with the project."""
        return next(b for b in self.branches.values() if b.is_default)

    @property
    def live_branches(self) -> list[Branch]:
        """The branches that are not deleted; none if the project is deleted."""
        if self.is_deleted:
            return []
        return [b for b in self.branches.values() if not b.is_deleted]

    def add_default_branch(self, *, is_protected: bool = False) -> Branch:
        """Add the branch and the endpoint that every project has."""
        endpoint = Endpoint(id=ENDPOINT, suspend_after=self.suspend_after)
        branch = Branch(
            id=BRANCH, parent=self.name, is_default=True, is_protected=is_protected
        )
        branch.endpoints[ENDPOINT] = endpoint
        self.branches[BRANCH] = branch
        return branch


@dataclass(frozen=True, slots=True)
class EndpointRef:
    """
    An endpoint and its parents, found by host name or by resource name.

    *suffix* is the suffix of the host name, one of `SUFFIXES`.
    """

    project: Project
    branch: Branch
    endpoint: Endpoint
    suffix: str = ""

    @property
    def name(self) -> str:
        """The resource name of the endpoint."""
        return f"{self.branch.name}/endpoints/{self.endpoint.id}"

    @property
    def is_pooled(self) -> bool:
        """Whether clients connect through a connection pooler."""
        return self.suffix.endswith("-pooler")

    @property
    def is_read_only(self) -> bool:
        """Whether a standby serves the endpoint."""
        return not self.endpoint.is_read_write or self.suffix.startswith("-ro")

    @property
    def folder(self) -> str:
        """The folder of the server that serves the endpoint."""
        return self.endpoint.folder if self.is_read_only else self.branch.folder


@dataclass(kw_only=True)
class WorkspaceState:
    """The state of the workspace; its repr shows no secrets."""

    workspace_id: str = field(default_factory=lambda: str(secrets.randbelow(10**16)))
    owner: str = field(default_factory=lambda: _random_email("owner"))
    owner_token: str = field(default_factory=_random_access_token, repr=False)
    # A person who has no role in PostgreSQL until one is created.
    developer: str = field(default_factory=lambda: _random_email("developer"))
    developer_token: str = field(default_factory=_random_access_token, repr=False)
    client_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret: str = field(
        default_factory=lambda: f"dose{secrets.token_hex(16)}", repr=False
    )
    client_secret_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    client_secret_created_at: float = field(default_factory=time.time)
    native_user: str = "native_user"
    native_password: str = field(
        default_factory=lambda: secrets.token_urlsafe(18), repr=False
    )
    signing_key: str = field(default_factory=generate_key, repr=False)
    projects: dict[str, Project] = field(default_factory=dict)

    @property
    def default_project(self) -> Project:
        """The first project; the environment variables are for its endpoint."""
        return next(iter(self.projects.values()))

    def groups_of(self, identity: str) -> list[str]:
        """Return the names of the groups that *identity* is a member of."""
        members = (self.owner, self.developer, self.client_id)
        return [GROUP] if identity in members else []

    def add_default_project(self, pg_version: int, suspend_after: float) -> Project:
        """Add the first project."""
        project_id = f"local-{secrets.token_hex(3)}"
        project = Project(
            id=project_id,
            display_name=project_id,
            owner=self.owner,
            pg_version=pg_version,
            has_native_login=True,
            suspend_after=suspend_after,
        )
        project.add_default_branch()
        self.projects[project_id] = project
        return project

    @property
    def live_projects(self) -> list[Project]:
        """The projects that are not deleted."""
        return [p for p in self.projects.values() if not p.is_deleted]

    def endpoint_refs(self) -> Iterator[EndpointRef]:
        """Yield the endpoints of all branches that are not deleted."""
        for project in self.projects.values():
            for branch in project.live_branches:
                for endpoint in branch.endpoints.values():
                    yield EndpointRef(project, branch, endpoint)

    def resolve_host(self, name: str) -> EndpointRef | None:
        """Return the endpoint with the host name *name*, or None."""
        label, _, domain = name.partition(".")
        if domain != DOMAIN:
            return None
        uid, suffix = next(
            (label.removesuffix(s), s) for s in SUFFIXES if label.endswith(s)
        )
        for ref in self.endpoint_refs():
            if ref.endpoint.uid == uid:
                return EndpointRef(ref.project, ref.branch, ref.endpoint, suffix)
        return None
