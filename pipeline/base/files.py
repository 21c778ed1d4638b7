"""Whole files or none, on a local disk and on every file system that fsspec knows.

Locally a file is written beside its place, synced and renamed. An object store shows an object when its upload is
complete and not before, so there it is written in place; other remote file systems get a temporary file and a move.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pipeline.base.errors import ConfigError, InputError, StoreError

#: How the names of what is not finished end, and of what another folder has just taken the place of.
TEMPORARY, PARTIAL, OLD = ".tmp", ".partial", ".old"
#: Where a PUT is all or nothing, and a rename is a copy.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})
#: What a file system answers that cannot sync a folder.
_NO_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP})


def locate(path: str | Path) -> Path:
    """A ``Path``, or for a URL the object with the same methods that ``universal_pathlib`` makes of it.

    >>> locate("runs/a")
    PosixPath('runs/a')

    Raises:
        ConfigError: nothing here knows the protocol of the URL.
    """
    if isinstance(path, str) and "://" in path:
        from upath import UPath

        try:
            remote: Any = UPath(path)
            remote.fs  # noqa: B018  opened here, where it can be said what is missing
        except (ImportError, ValueError) as error:
            protocol = path.partition("://")[0]
            raise ConfigError(f"{protocol}:// cannot be opened: {error}", "install it, or name a folder") from error
        return Path(remote.path) if remote.protocol in ("file", "local") else remote
    return Path(path) if isinstance(path, str) else path


def is_local(path: Path) -> bool:
    return isinstance(path, Path) and not hasattr(path, "fs")


def absolute(path: Path) -> str:
    """How another process, perhaps on another machine, names the same place."""
    return str(path.resolve()) if is_local(path) else str(path)


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill the file; a reader sees the old content or the new, whole.

    Raises:
        StoreError: the disk is full, or the file cannot be written; nothing is left behind.
    """
    if not is_local(path):
        return _write_remote(path, write)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        make_folder(path.parent)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        _forget(temporary)
        raise disk_error(path, error) from error
    except BaseException:
        _forget(temporary)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def write_table(path: Path, table: pa.Table) -> None:
    def write(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    write_atomic(path, write)


def read_table(path: Path) -> pa.Table:
    """
    Raises:
        InputError: there is no such file.
        StoreError: it is not an Arrow file.
    """
    try:
        with _source(path) as source, pa.ipc.open_file(source) as reader:
            return reader.read_all()
    except FileNotFoundError as error:
        raise InputError(f"shard {path} is missing", "run the stage it belongs to") from error
    except pa.ArrowInvalid as error:
        raise StoreError(f"shard {path} is not an Arrow file ({error})", "remove it and run again") from error


def read_schema(path: Path) -> pa.Schema:
    """The schema with its metadata; of the file, only the footer is read."""
    with _source(path) as source, pa.ipc.open_file(source) as reader:
        return reader.schema


def read_text(path: Path) -> str | None:
    """The content, or None if there is no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def names(folder: Path) -> list[str]:
    if is_local(folder):
        return sorted(os.listdir(folder)) if folder.is_dir() else []
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, for good: a power cut does not take it along with what is written into it."""
    if not folder.is_dir():
        if is_local(folder) and folder != folder.parent:
            make_folder(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        if is_local(folder):
            sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file for good; one that is not there is fine."""
    path.unlink(missing_ok=True)
    if is_local(path) and path.parent.is_dir():
        sync_folder(path.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it; one that is not there is fine. On a disk it is gone at once, whole."""
    if is_local(folder):
        if not folder.is_dir():
            return
        aside = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY}")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            os.rename(folder, aside)
            sync_folder(folder.parent)
            if aside.is_symlink():
                aside.unlink()
        except OSError as error:
            raise disk_error(folder, error) from error
        shutil.rmtree(aside, ignore_errors=True)
    elif folder.exists():
        remote: Any = folder
        remote.fs.rm(remote.path, recursive=True)


def move(old: Path, new: Path) -> None:
    """Move a file or folder to a name that is free."""
    if is_local(old):
        make_folder(new.parent)
        os.rename(old, new)
        for folder in {old.parent, new.parent}:
            sync_folder(folder)
    else:
        source: Any = old
        target: Any = new
        if source.protocol in OBJECT_STORES and old.is_dir():
            # Their folders are only in the names of objects: fsspec's recursive move asks S3 for the folders as well.
            paths = source.fs.find(source.path)
            start = len(source.fs._strip_protocol(source.path))
            source.fs.copy(paths, [f"{target.path}{path[start:]}" for path in paths])
            remove_tree(old)
        else:
            source.fs.mv(source.path, target.path, recursive=old.is_dir())


def replace_folder(partial: Path, target: Path) -> None:
    """Put a folder in the place of another. Between two moves there is none, never a mixture; ``target.old`` is then
    what it was (``pipeline.base.sweep`` puts it back)."""
    old = target.with_name(target.name + OLD)
    remove_tree(old)
    if target.exists():
        move(target, old)
    move(partial, target)
    remove_tree(old)


def sync_tree(folder: Path) -> None:
    """Have a file, or every file and folder below, on the disk, for all who may read the folder: for what others than
    this module have written. safetensors writes its files for their owner alone."""
    for path in (*(folder.rglob("*") if folder.is_dir() else ()), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                _let_read(file.fileno(), path.parent)
                os.fsync(file.fileno())


def _let_read(handle: int, folder: Path) -> None:
    about = os.fstat(handle)
    if about.st_nlink == 1:  # what is linked from elsewhere is another's, too
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, stat.S_IMODE(about.st_mode) | (folder.stat().st_mode & 0o444))


def sync_folder(folder: Path) -> None:
    """Without it a power cut can forget a rename although the file's bytes are on disk. Some file systems (CIFS,
    several of FUSE) sync no folder and say so; what was written into it is there all the same."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def disk_error(path: Path, error: OSError) -> StoreError:
    """The store's word for an operating system error while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left while writing {path}",
            f"free some space on {path.parent} and run the same command again; finished shards are kept",
        )
    return StoreError(f"cannot write {path}: {error.strerror or error}", "check the folder's permissions")


def _source(path: Path) -> Any:
    return pa.memory_map(str(path)) if is_local(path) else path.open("rb")


def _write_remote(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    buffer = io.BytesIO()
    write(buffer)
    remote: Any = path
    try:
        if remote.protocol in OBJECT_STORES:
            remote.fs.pipe_file(remote.path, buffer.getvalue())
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary: Any = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
        remote.fs.pipe_file(temporary.path, buffer.getvalue())
        remote.fs.mv(temporary.path, remote.path)
    except OSError as error:
        raise disk_error(path, error) from error


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself went away; what is to be said is the error that led here
        return
