"""The file that holds the state of a data directory."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from .model import Branch, Endpoint, Project, WorkspaceState

T = TypeVar("T")


class StateStore:
    """Loads and saves the state of *directory*."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "state.json"

    def load(self) -> WorkspaceState:
        """Return the saved state, or a new one."""
        if not self._file.exists():
            return WorkspaceState()
        fields = json.loads(self._file.read_text())
        projects = _load_each(fields.pop("projects"), _load_project)
        for project in projects.values():
            # Drop branches that a killed run was still creating: they have no server.
            project.branches = {
                key: branch
                for key, branch in project.branches.items()
                if branch.current_state == "READY"
            }
        complete = {
            key: project for key, project in projects.items() if project.branches
        }
        return WorkspaceState(**fields, projects=complete)

    def save(self, state: WorkspaceState) -> None:
        """Save *state*; the file is replaced atomically."""
        new = self._file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(asdict(state)))
        new.replace(self._file)


def _load_each(
    items: dict[str, Any], load: Callable[[dict[str, Any]], T]
) -> dict[str, T]:
    return {key: load(fields) for key, fields in items.items()}


def _load_project(fields: dict[str, Any]) -> Project:
    branches = fields.pop("branches")
    project = Project(**fields)
    for branch in branches.values():
        # Files of earlier versions do not have it.
        branch["parent"] = project.name
    project.branches = _load_each(branches, _load_branch)
    return project


def _load_branch(fields: dict[str, Any]) -> Branch:
    endpoints = fields.pop("endpoints")
    return Branch(
        **fields, endpoints=_load_each(endpoints, lambda fields: Endpoint(**fields))
    )
