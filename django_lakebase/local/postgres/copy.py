"""
A copy of a running cluster, made as a base backup: first the data files, then the WAL.

A branch contains the transactions that were committed when the copy ended, and is then
independent of its parent. A standby continues to replicate from that point.
"""

import asyncio
import os
import re
import secrets
import shutil
from pathlib import Path

from django_lakebase.local.errors import LocalError

from .admin_connection import AdminConnection, quote_literal
from .launcher import Launcher
from .server import Server

# Folders that are created empty, because their content belongs to the source.
EMPTY_FOLDERS = frozenset(
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
EXCLUDED_FILES = re.compile(r"postmaster\.(pid|opts)|pgsql_tmp.*|pg_internal\.init.*")
BACKUP_START = re.compile(r"START WAL LOCATION: (\S+) \(file (\w{24})\)")


async def copy_cluster(
    launcher: Launcher, source: Server, target: Server, *, is_standby: bool = False
) -> str:
    """Copy the data of the running *source* to *target*; return the start LSN."""
    admin = await AdminConnection.open(source.socket)
    slot = quote_literal(f"copy_{secrets.token_hex(4)}")
    try:
        # A temporary slot, which ends with the session, keeps the WAL of the copy.
        await admin.query(
            f"SELECT pg_create_physical_replication_slot({slot}, true, true)"
        )
        await admin.query("SELECT pg_backup_start('branch', true)")
        for path in (target.folder, target.data):
            launcher.make_directory(path)
        await asyncio.to_thread(_copy_folder, launcher, source.data, target.data)
        rows = await admin.query("SELECT labelfile FROM pg_backup_stop(false)")
        label = rows[0][0] or ""
        match = BACKUP_START.search(label)
        if match is None:
            raise LocalError(f"PostgreSQL's backup label has no start: {label}")
        await asyncio.to_thread(_copy_wal, launcher, source, target, match[2])
        _write(launcher, target.data / "backup_label", label)
        if is_standby:
            _write(launcher, target.data / "standby.signal", "")
        return match[1]
    finally:
        admin.close()


def _copy_folder(launcher: Launcher, source: Path, target: Path) -> None:
    for entry in os.scandir(source):
        copy = target / entry.name
        if EXCLUDED_FILES.fullmatch(entry.name):
            continue
        if not entry.is_dir(follow_symlinks=False):
            _copy_file(launcher, Path(entry.path), copy)
            continue
        launcher.make_directory(copy)
        if entry.name in EMPTY_FOLDERS:
            continue
        try:
            _copy_folder(launcher, Path(entry.path), copy)
        except FileNotFoundError:
            # The database was dropped during the copy, and the WAL records that.
            continue


def _copy_file(launcher: Launcher, source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return
    target.chmod(0o600)
    launcher.chown(target)


def _copy_wal(launcher: Launcher, source: Server, target: Server, first: str) -> None:
    for file in (source.data / "pg_wal").iterdir():
        if re.fullmatch(r"[0-9A-F]{24}", file.name) and file.name >= first:
            _copy_file(launcher, file, target.data / "pg_wal" / file.name)


def _write(launcher: Launcher, file: Path, text: str) -> None:
    file.write_text(text)
    launcher.chown(file)
