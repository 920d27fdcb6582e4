"""
A copy of a running cluster, made as a base backup: files first, then the log.

The copy of a branch starts from what was committed when the copy ended, and knows
nothing of its parent. The copy for a standby goes on from there.
"""

import asyncio
import os
import re
import secrets
import shutil
from pathlib import Path

from .admin import Backdoor, quoted
from .binaries import LocalError
from .server import Machine, Server

# Their content is the running server's own: made anew by the next one.
EMPTIED = frozenset(
    {
        "pg_wal",
        "pg_replslot",
        "pg_dynshmem",
        "pg_notify",
        "pg_serial",
        "pg_snapshots",
        "pg_stat_tmp",
        "pg_subtrans",
    }
)
LEFT_OUT = re.compile(r"postmaster\.(pid|opts)|pgsql_tmp.*|pg_internal\.init.*")
START = re.compile(r"START WAL LOCATION: (\S+) \(file (\w{24})\)")


async def copy_cluster(
    machine: Machine, source: Server, target: Server, *, is_standby: bool = False
) -> str:
    """Copy the data of *source*, which runs, to *target*; return where in its log."""
    door = await Backdoor.open(source.socket)
    slot = quoted(f"copy_{secrets.token_hex(4)}")
    try:
        # Keeps the log from being recycled meanwhile; goes with the session.
        await door.query(
            f"SELECT pg_create_physical_replication_slot({slot}, true, true)"
        )
        await door.query("SELECT pg_backup_start('branch', true)")
        for needed in (target.folder, target.data):
            machine.make_folder(needed)
        await asyncio.to_thread(_copy_folder, machine, source.data, target.data)
        rows = await door.query("SELECT labelfile FROM pg_backup_stop(false)")
        label = rows[0][0] or ""
        started = START.search(label)
        if started is None:
            raise LocalError(f"PostgreSQL's backup label is not understood: {label}")
        await asyncio.to_thread(_copy_log, machine, source, target, started[2])
        _write(machine, target.data / "backup_label", label)
        if is_standby:
            _write(machine, target.data / "standby.signal", "")
        return started[1]
    finally:
        door.close()


def _copy_folder(machine: Machine, source: Path, target: Path) -> None:
    for entry in os.scandir(source):
        copy = target / entry.name
        if LEFT_OUT.fullmatch(entry.name):
            continue
        if not entry.is_dir(follow_symlinks=False):
            _copy_file(machine, Path(entry.path), copy)
            continue
        machine.make_folder(copy)
        if entry.name in EMPTIED:
            continue
        try:
            _copy_folder(machine, Path(entry.path), copy)
        except FileNotFoundError:
            # The folder of a database that was dropped meanwhile: the log says so.
            continue


def _copy_file(machine: Machine, source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return
    target.chmod(0o600)
    machine.give(target)


def _copy_log(machine: Machine, source: Server, target: Server, first: str) -> None:
    for file in (source.data / "pg_wal").iterdir():
        if re.fullmatch(r"[0-9A-F]{24}", file.name) and file.name >= first:
            _copy_file(machine, file, target.data / "pg_wal" / file.name)


def _write(machine: Machine, file: Path, text: str) -> None:
    file.write_text(text)
    machine.give(file)
