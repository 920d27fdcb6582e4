"""Databases over the API: read from PostgreSQL, and changed there."""

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.sql import Database
from django_lakebase.local.state.model import Branch, Project, branch_name

from .errors import already_exists, bad_request, not_found, required
from .operations import DELETED, Json
from .params import ID, paginate, read_json, select_masked_fields, validate_id
from .resources import Resources, choose_id
from .roles import RoleHandlers
from .serializers import serialize_database


class DatabaseHandlers:
    """The databases of branches. A request is checked before anything is done."""

    def __init__(self, resources: Resources, roles: RoleHandlers) -> None:
        self._resources, self._roles = resources, roles

    async def _fetch(self, branch: Branch) -> dict[str, Database]:
        found = await sql.fetch_databases(self._resources.get_admin(branch))
        return {
            choose_id(database.name, branch.databases, "db"): database
            for database in found
        }

    async def list_all(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Answer with the databases of *branch*."""
        parent = branch_name(project, branch)
        found = await self._fetch(branch)
        shown = [
            _serialize(parent, branch, key, database) for key, database in found.items()
        ]
        return paginate(request, "databases", shown)

    async def get(self, project: Project, branch: Branch, database_id: str) -> Json:
        """Answer with one database."""
        database = await self._find(branch, database_id)
        return _serialize(branch_name(project, branch), branch, database_id, database)

    async def _find(self, branch: Branch, database_id: str) -> Database:
        database = (await self._fetch(branch)).get(database_id)
        if database is None:
            raise not_found("database")
        return database

    async def create(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Make a database, which one of the branch's roles owns."""
        spec = (await read_json(request)).get("spec") or {}
        name = str(spec.get("postgres_database") or "")
        if not name:
            raise required("database.spec.postgres_database")
        if not spec.get("role"):
            raise required("database.spec.role")
        database_id = request.query.get("database_id", "") or choose_id(name, {}, "db")
        validate_id("database_id", database_id, ID)
        owner = await self._roles.find(branch, str(spec["role"]).rpartition("/")[2])
        found = await self._fetch(branch)
        if any(database.name == name for database in found.values()):
            raise bad_request("database with that name already exists")
        if database_id in found:
            raise already_exists("database with such id already exists")
        admin = self._resources.get_admin(branch)

        async def work() -> Json:
            await sql.create_database(admin, name, owner.name)
            branch.databases[database_id] = name
            self._resources.save()
            return await self.get(project, branch, database_id)

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._resources.operations.start(full, "Database", work())

    async def update(
        self, request: web.Request, project: Project, branch: Branch, database_id: str
    ) -> Json:
        """Rename a database, or give it another owner."""
        database = await self._find(branch, database_id)
        admin = self._resources.get_admin(branch)
        body = await read_json(request)
        fields = select_masked_fields(request, body.get("spec") or {})
        name = str(fields.get("postgres_database") or database.name)
        role = str(fields.get("role") or "").rpartition("/")[2]
        owner = (await self._roles.find(branch, role)).name if role else database.owner

        async def work() -> Json:
            await sql.alter_database(admin, database.name, name, owner)
            branch.databases[database_id] = name
            self._resources.save()
            return await self.get(project, branch, database_id)

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._resources.operations.start(full, "Database", work())

    async def delete(self, project: Project, branch: Branch, database_id: str) -> Json:
        """Drop a database, ending its sessions."""
        database = await self._find(branch, database_id)
        admin = self._resources.get_admin(branch)

        async def work() -> Json:
            await sql.drop_database(admin, database.name)
            branch.databases.pop(database_id, None)
            self._resources.save()
            return DELETED

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._resources.operations.start(full, "Database", work())


def _serialize(
    parent: str, branch: Branch, database_id: str, database: Database
) -> Json:
    owner_id = choose_id(database.owner, branch.roles, "role")
    return serialize_database(parent, database_id, owner_id, database)
