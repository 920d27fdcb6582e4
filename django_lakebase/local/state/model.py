"""
The state of the workspace as data: projects, branches, endpoints and secrets.

Names and secrets are generated for each data directory and kept in it, so that
``--data`` gives the same ones again. Roles and databases are read from PostgreSQL.
"""

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
# Seconds, as the service makes them for a new project.
SUSPEND_AFTER = 86400.0
RETENTION = 604800.0
# Seconds for which a deleted resource can be undeleted.
PURGE_AFTER = 604800.0
# What may follow an endpoint's uid in a host name, the longest first.
SUFFIXES = ("-ro-pooler", "-pooler", "-ro", "")
# The group that the owner and the service principal are members of.
GROUP = "local-developers"
WORDS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron")


def _random_name() -> str:
    return f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}-{secrets.token_hex(4)}"


@dataclass(kw_only=True)
class Resource:
    """What every resource has; moments are seconds since 1970."""

    id: str
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    deleted_at: float | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether it waits to be purged, and can be undeleted."""
        return self.deleted_at is not None

    def touch(self) -> None:
        """Note that it was changed now."""
        self.updated_at = time.time()


@dataclass(kw_only=True)
class Endpoint(Resource):
    """A compute of a branch, or a group of them; *suspend_after* 0 is never."""

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
    # Of its standby, if it has one.
    folder: str = field(default_factory=lambda: f"s-{secrets.token_hex(4)}")

    @property
    def has_standby(self) -> bool:
        """Whether it has a server of its own, which follows the branch's."""
        return not self.is_read_write or self.has_secondaries

    def host(self, suffix: str = "") -> str:
        """Return its host name; it does not resolve."""
        return f"{self.uid}{suffix}.{DOMAIN}"


@dataclass(kw_only=True)
class Branch(Resource):
    """A copy of a database server; *source* is its parent's resource name."""

    uid: str = field(default_factory=lambda: f"br-{_random_name()}")
    current_state: str = "INIT"
    state_changed_at: float = field(default_factory=time.time)
    is_default: bool = False
    is_protected: bool = False
    source: str = ""
    source_lsn: str = ""
    expires_at: float | None = None
    # Logins are refused until then, as the service does with new branches.
    accepts_logins_at: float = 0.0
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    # What the API called them, by id; and the passwords that it made, by role.
    roles: dict[str, str] = field(default_factory=dict)
    databases: dict[str, str] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> str:
        """The folder of its server."""
        return f"b-{self.uid.rpartition('-')[2]}"

    def set_state(self, state: str) -> None:
        """Change its state."""
        self.current_state, self.state_changed_at = state, time.time()


@dataclass(kw_only=True)
class Project(Resource):
    """A project with its branches."""

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
        """Its resource name."""
        return f"projects/{self.id}"

    @property
    def default_branch(self) -> Branch:
        """The branch that it was made with."""
        return next(b for b in self.branches.values() if b.is_default)

    @property
    def live_branches(self) -> list[Branch]:
        """The branches that are not deleted; none where the project itself is."""
        if self.is_deleted:
            return []
        return [b for b in self.branches.values() if not b.is_deleted]

    def add_default_branch(self, *, is_protected: bool = False) -> Branch:
        """Give it the branch and the endpoint that every project has."""
        endpoint = Endpoint(id=ENDPOINT, suspend_after=self.suspend_after)
        branch = Branch(id=BRANCH, is_default=True, is_protected=is_protected)
        branch.endpoints[ENDPOINT] = endpoint
        self.branches[BRANCH] = branch
        return branch


@dataclass(frozen=True, slots=True)
class EndpointRef:
    """
    An endpoint with its parents, as a host name or a resource name addresses it.

    *suffix* is the one of `SUFFIXES` that the host name has.
    """

    project: Project
    branch: Branch
    endpoint: Endpoint
    suffix: str = ""

    @property
    def is_pooled(self) -> bool:
        """Whether a connection pooler stands before it."""
        return self.suffix.endswith("-pooler")

    @property
    def is_read_only(self) -> bool:
        """Whether it is served by a standby."""
        return not self.endpoint.is_read_write or self.suffix.startswith("-ro")

    @property
    def folder(self) -> str:
        """The folder of the server that serves it."""
        return self.endpoint.folder if self.is_read_only else self.branch.folder


@dataclass(kw_only=True)
class WorkspaceState:
    """The workspace; its secrets are in no repr."""

    workspace_id: str = field(default_factory=lambda: str(secrets.randbelow(10**16)))
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
    signing_key: str = field(default_factory=generate_key, repr=False)
    projects: dict[str, Project] = field(default_factory=dict)

    @property
    def default_project(self) -> Project:
        """The project that it was made with, which the variables lead to."""
        return next(iter(self.projects.values()))

    def groups_of(self, identity: str) -> list[str]:
        """Return the names of the groups that *identity* is a member of."""
        return [GROUP] if identity in (self.owner, self.client_id) else []

    def add_default_project(self, pg_version: int, suspend_after: float) -> Project:
        """Give it its first project."""
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
        """Yield every endpoint with its branch and project."""
        for project in self.projects.values():
            for branch in project.live_branches:
                for endpoint in branch.endpoints.values():
                    yield EndpointRef(project, branch, endpoint)

    def resolve_host(self, name: str) -> EndpointRef | None:
        """Return the endpoint with the host *name*, if there is one."""
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


def branch_name(project: Project, branch: Branch) -> str:
    """Return the resource name of *branch*."""
    return f"{project.name}/branches/{branch.id}"


def endpoint_name(ref: EndpointRef) -> str:
    """Return the resource name of the endpoint of *ref*."""
    branch = branch_name(ref.project, ref.branch)
    return f"{branch}/endpoints/{ref.endpoint.id}"
