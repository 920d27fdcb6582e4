"""
Long-running operations.

An operation is never done in the first response, so the SDK polls it at least once. It
can be polled for as long as the emulator runs.
"""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres.admin_connection import SqlError

from .errors import ApiError, not_found

TYPES = "type.googleapis.com"
DELETED = {"@type": f"{TYPES}/google.protobuf.Empty"}

Json = dict[str, Any]


class Operations:
    """All operations since the start of the emulator."""

    def __init__(self) -> None:
        self._operations: dict[str, Json] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, kind: str, work: Coroutine[Any, Any, Json]) -> Json:
        """Run *work* for the resource *name* in the background; return an operation."""
        operation: Json = {
            "name": f"{name}/operations/{uuid.uuid4()}",
            "done": False,
            "metadata": {
                "@type": f"{TYPES}/databricks.postgres.v1.{kind}OperationMetadata"
            },
        }
        self._operations[operation["name"]] = operation
        task = asyncio.get_running_loop().create_task(self._run(operation, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return dict(operation)

    async def get(self, request: web.Request) -> Json:
        """Return the operation in the path of *request*; raises ApiError."""
        operation = self._operations.get(request.match_info["name"])
        if operation is None:
            raise not_found("operation")
        return operation

    def close(self) -> None:
        """Cancel the operations that are running."""
        for task in list(self._tasks):
            task.cancel()

    async def _run(self, operation: Json, work: Coroutine[Any, Any, Json]) -> None:
        try:
            operation["response"] = await work
        except ApiError as exc:
            operation["error"] = {"error_code": exc.code, "message": exc.text}
        except SqlError as exc:
            operation["error"] = {"error_code": "BAD_REQUEST", "message": str(exc)}
        except Exception as exc:
            operation["error"] = {"error_code": "INTERNAL_ERROR", "message": str(exc)}
            raise
        finally:
            operation["done"] = True
