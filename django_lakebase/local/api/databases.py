"""Handlers for databases, which are read and changed in PostgreSQL."""

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.sql import Database
from django_lakebase.local.state.model import Branch

from .errors import already_exists, bad_request, not_found, required
from .operations import DELETED, Json
from .params import ID, paginate, read_masked_spec, read_spec, validate_id
from .resources import Resources, choose_id
from .roles import RoleHandlers
from .serializers import serialize_database


class DatabaseHandlers:
    """Handles requests for databases; validates each before changing anything."""

    def __init__(self, resources: Resources, roles: RoleHandlers) -> None:
        self._resources, self._roles = resources, roles

    async def _fetch(self, branch: Branch) -> dict[str, Database]:
        databases = await sql.fetch_databases(self._resources.get_admin(branch))
        return {
            choose_id(database.name, branch.databases, "db"): database
            for database in databases
        }

    async def list_all(self, request: web.Request) -> Json:
        """Return a page of the databases of *branch*."""
        branch = self._resources.find_branch(request)
        parent = branch.name
        databases = await self._fetch(branch)
        items = [
            _serialize(parent, branch, database_id, database)
            for database_id, database in databases.items()
        ]
        return paginate(request, "databases", items)

    async def get(self, request: web.Request) -> Json:
        """Return a database."""
        branch = self._resources.find_branch(request)
        return await self._read(branch, request.match_info["database_id"])

    async def _read(self, branch: Branch, database_id: str) -> Json:
        database = await self._find(branch, database_id)
        return _serialize(branch.name, branch, database_id, database)

    async def _find(self, branch: Branch, database_id: str) -> Database:
        database = (await self._fetch(branch)).get(database_id)
        if database is None:
            raise not_found("database")
        return database

    async def create(self, request: web.Request) -> Json:
        """Create a database owned by a role of the branch."""
        branch = self._resources.find_branch(request)
        spec = await read_spec(request)
        name = str(spec.get("postgres_database") or "")
        if not name:
            raise required("database.spec.postgres_database")
        if not spec.get("role"):
            raise required("database.spec.role")
        database_id = request.query.get("database_id", "") or choose_id(name, {}, "db")
        validate_id("database_id", database_id, ID)
        owner = await self._roles.find(branch, str(spec["role"]).rpartition("/")[2])
        databases = await self._fetch(branch)
        if any(database.name == name for database in databases.values()):
            raise bad_request("database with that name already exists")
        if database_id in databases:
            raise already_exists("database with such id already exists")
        admin = self._resources.get_admin(branch)

        async def work() -> Json:
            await sql.create_database(admin, name, owner.name)
            branch.databases[database_id] = name
            self._resources.save()
            return await self._read(branch, database_id)

        full_name = f"{branch.name}/databases/{database_id}"
        return self._resources.operations.start(full_name, "Database", work())

    async def update(self, request: web.Request) -> Json:
        """Rename a database or change its owner."""
        branch = self._resources.find_branch(request)
        database_id = request.match_info["database_id"]
        database = await self._find(branch, database_id)
        admin = self._resources.get_admin(branch)
        fields = await read_masked_spec(request)
        name = str(fields.get("postgres_database") or database.name)
        role = str(fields.get("role") or "").rpartition("/")[2]
        owner = (await self._roles.find(branch, role)).name if role else database.owner

        async def work() -> Json:
            await sql.alter_database(admin, database.name, name, owner)
            branch.databases[database_id] = name
            self._resources.save()
            return await self._read(branch, database_id)

        full_name = f"{branch.name}/databases/{database_id}"
        return self._resources.operations.start(full_name, "Database", work())

    async def delete(self, request: web.Request) -> Json:
        """End the sessions of a database and drop it."""
        branch = self._resources.find_branch(request)
        database_id = request.match_info["database_id"]
        database = await self._find(branch, database_id)
        admin = self._resources.get_admin(branch)

        async def work() -> Json:
            await sql.drop_database(admin, database.name)
            branch.databases.pop(database_id, None)
            self._resources.save()
            return DELETED

        full_name = f"{branch.name}/databases/{database_id}"
        return self._resources.operations.start(full_name, "Database", work())


def _serialize(
    parent: str, branch: Branch, database_id: str, database: Database
) -> Json:
    owner_id = choose_id(database.owner, branch.roles, "role")
    return serialize_database(parent, database_id, owner_id, database)
