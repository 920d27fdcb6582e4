"""Handlers for databases, which are read and changed in PostgreSQL."""

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.sql import Database
from django_lakebase.local.state.model import Branch

from .errors import already_exists, bad_request, required
from .operations import Json
from .params import ID, read_masked_spec, read_spec, validate_id
from .postgres_objects import PostgresObjectHandlers, choose_id
from .resources import Resources
from .roles import RoleHandlers
from .serializers import serialize_database


class DatabaseHandlers(PostgresObjectHandlers[Database]):
    """Handles requests for databases."""

    kind = "database"

    def __init__(self, resources: Resources, roles: RoleHandlers) -> None:
        super().__init__(resources)
        self._roles = roles

    async def _fetch(self, branch: Branch) -> dict[str, Database]:
        databases = await sql.fetch_databases(self._resources.get_admin(branch))
        return {choose_id(db.name, branch.databases, "db"): db for db in databases}

    def _serialize(self, branch: Branch, key: str, item: Database) -> Json:
        owner_id = choose_id(item.owner, branch.roles, "role")
        return serialize_database(branch.name, key, owner_id, item)

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

        async def create() -> None:
            await sql.create_database(admin, name, owner.name)
            branch.databases[database_id] = name

        return self._start(branch, database_id, create())

    async def update(self, request: web.Request) -> Json:
        """Rename a database or change its owner."""
        branch, database_id, database = await self._find_in_path(request)
        admin = self._resources.get_admin(branch)
        fields = await read_masked_spec(request)
        name = str(fields.get("postgres_database") or database.name)
        role = str(fields.get("role") or "").rpartition("/")[2]
        owner = (await self._roles.find(branch, role)).name if role else database.owner

        async def alter() -> None:
            await sql.alter_database(admin, database.name, name, owner)
            branch.databases[database_id] = name

        return self._start(branch, database_id, alter())

    async def delete(self, request: web.Request) -> Json:
        """End the sessions of a database and drop it."""
        branch, database_id, database = await self._find_in_path(request)
        admin = self._resources.get_admin(branch)

        async def drop() -> None:
            await sql.drop_database(admin, database.name)
            branch.databases.pop(database_id, None)

        return self._start(branch, database_id, drop(), drops=True)
