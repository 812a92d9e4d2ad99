"""The workspace: the one folder that file tools may touch, and the only way that they touch it.

Guaranteed, also while someone with access to the folder changes it at the same time:

- Nothing outside the workspace is ever opened, listed or told of. A path is walked one component at a time, each opened
  relative to its parent's descriptor and never through a symbolic link by the system; links are followed here, by name,
  and a ``..`` in one goes back to the descriptor that the walk came through. So nothing lies between check and use.
- Only directories and regular files are opened. Pipes, sockets and devices are refused before they are opened, and, if
  they took a file's place meanwhile, once more after, without blocking.
- Depth, links followed and entries read are bounded.

Not guaranteed: what is mounted or hard-linked into the workspace is inside it, and a directory that is moved out while
it is open is read to the end. Which files are read, and how far, is for ``tools.builtin.files``.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeAlias

from tools.authoring import ToolError

MAX_PATH_BYTES = 4_096
MAX_COMPONENTS = 64
MAX_LINKS = 40
MAX_WALK_DEPTH = 32
MAX_DIRECTORY_ENTRIES = 100_000

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC

Parts: TypeAlias = tuple[str, ...]
"""A path in the workspace by its components, as ``os`` names them (surrogates stand for bytes that are not UTF-8)."""


class EntryKind(enum.StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


_KINDS = {stat.S_IFREG: EntryKind.FILE, stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK}
_REASONS = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "may not be read by this server",
    errno.EPERM: "may not be read by this server",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.EFBIG: f"has more than {MAX_DIRECTORY_ENTRIES} entries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a walk found. A symbolic link is told of and not followed."""

    parts: Parts
    kind: EntryKind
    size_bytes: int | None
    """Of files; else ``None``."""
    modified_at: datetime | None
    """To the second, UTC; ``None``: the file system says what is no time."""


def parse_path(path: str) -> Parts:
    """A caller's path as components: ``/`` between them, relative to the workspace; ``.`` or nothing is the workspace.

    Raises:
        ToolError: it is absolute, has a ``..``, is too long or too deep, or is not text.
    """
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise ToolError("The path is not Unicode text.") from error
    if "\0" in path or len(encoded) > MAX_PATH_BYTES:
        raise ToolError(f"The path has a null character, or more than {MAX_PATH_BYTES} bytes.")
    if path.startswith("/"):
        raise ToolError("The path is absolute; give it relative to the workspace, such as 'docs/index.md'.")
    parts = tuple(os.fsdecode(part) for part in encoded.split(b"/") if part not in {b"", b"."})
    if ".." in parts:
        raise ToolError("The path has a '..'; give it relative to the workspace, from the top.")
    if len(parts) > MAX_COMPONENTS:
        raise ToolError(f"The path has more than {MAX_COMPONENTS} components.")
    return parts


def show_path(parts: Parts) -> str:
    """The path for people and JSON; bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode("/".join(parts)).decode("utf-8", "replace") or "."


def is_exact(parts: Parts) -> bool:
    """Whether the shown path leads back to the file: all of its names are UTF-8."""
    try:
        os.fsencode("/".join(parts)).decode()
    except UnicodeDecodeError:
        return False
    return True


class Workspace:
    """A workspace that is open; a context manager."""

    def __init__(self, root: Path) -> None:
        self._root_names = {str(root.absolute()).rstrip("/"), os.path.realpath(root).rstrip("/")}
        self._root_path = os.path.realpath(root)
        self._root = -1

    def __enter__(self) -> Self:
        try:
            self._root = os.open(self._root_path, _OPEN_DIRECTORY)
        except OSError as error:
            raise ToolError("The server's workspace is not a folder that it can read; tell its operator.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._root)

    def get_kind(self, parts: Parts) -> EntryKind:
        """``FILE`` or ``DIRECTORY``, links followed.

        Raises:
            ToolError: it is neither, may not be read, or is not in the workspace.
        """
        descriptor = self._open(parts)
        try:
            return _to_kind(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)

    def open_file(self, parts: Parts) -> BinaryIO:
        """A regular file, to read; links are followed.

        Raises:
            ToolError: there is none, it is something else, may not be read, or is not in the workspace.
        """
        descriptor = self._open(parts)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        raise ToolError(f"{show_path(parts)!r} is a folder, not a file.")

    def list_folder(self, parts: Parts, *, after: tuple[bytes, ...] = ()) -> Walk:
        """What is directly in a folder, past the path ``after`` (relative to the folder). See ``Walk``."""
        return Walk(open_top=partial(self._open_directory, parts), parts=parts, max_depth=1, after=after)

    def walk_tree(self, parts: Parts, *, after: tuple[bytes, ...] = ()) -> Walk:
        """What is in a folder and in those below it, past the path ``after``. See ``Walk``."""
        return Walk(open_top=partial(self._open_directory, parts), parts=parts, max_depth=MAX_WALK_DEPTH, after=after)

    def _open_directory(self, parts: Parts) -> int:
        descriptor = self._open(parts)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise ToolError(f"{show_path(parts)!r} is a file, not a folder.")

    def _open(self, parts: Parts) -> int:
        """A descriptor of the file or directory at ``parts``, the caller's to close."""
        trail = [os.dup(self._root)]
        try:
            return self._descend(trail, parts)
        except OSError as error:
            raise ToolError(_explain(error, parts)) from error
        finally:
            for descriptor in trail:
                os.close(descriptor)

    def _descend(self, trail: list[int], parts: Parts) -> int:
        """The descriptor at ``parts`` below the last of ``trail``, which holds the directories on the way there."""
        pending = deque(parts)
        links = 0
        while pending:
            name = pending.popleft()
            if name == "..":
                _ascend(trail, parts)
                continue
            kind = _to_kind(os.stat(name, dir_fd=trail[-1], follow_symlinks=False).st_mode)
            if kind is EntryKind.DIRECTORY:
                trail.append(os.open(name, _OPEN_DIRECTORY, dir_fd=trail[-1]))
            elif kind is EntryKind.SYMLINK:
                links += 1
                if links > MAX_LINKS:
                    raise ToolError(f"{show_path(parts)!r} leads through too many links.")
                pending.extendleft(reversed(self._read_link(trail, name, parts)))
            elif kind is EntryKind.FILE and not pending:
                return _open_regular(name, trail[-1], parts)
            elif kind is EntryKind.FILE:
                raise ToolError(f"{show_path(parts)!r} leads through a file as if it were a folder.")
            else:
                raise _make_special_error(parts)
        return trail.pop()

    def _read_link(self, trail: list[int], name: str, parts: Parts) -> list[str]:
        """The components that the link stands for; an absolute one within the workspace starts again from its root."""
        target = os.readlink(name, dir_fd=trail[-1])
        if target.startswith("/"):
            root = next((root for root in self._root_names if f"{target}/".startswith(f"{root}/")), None)
            if root is None:
                raise _make_outside_error(parts)
            while len(trail) > 1:
                os.close(trail.pop())
            target = target[len(root) :]
        components = [part for part in target.split("/") if part not in {"", "."}]
        if len(components) > MAX_COMPONENTS:
            raise ToolError(f"{show_path(parts)!r} leads through a link that is too long.")
        return components


class Walk:
    """The entries of a folder, each before what is in it, siblings in the order of their names' bytes.

    Iterating raises:
        ToolError: there is no such folder, it may not be read, is too large, or is not in the workspace.
    """

    def __init__(self, *, open_top: Callable[[], int], parts: Parts, max_depth: int, after: tuple[bytes, ...]) -> None:
        """``open_top`` gives a descriptor of the folder, ``parts`` are its path, ``after`` is relative to it."""
        self.skipped_directories = 0
        """How many were not read so far: not permitted, gone, too deep or too large."""
        self._open_top = open_top
        self._parts = parts
        self._max_depth = max_depth
        self._after = after

    def __iter__(self) -> Iterator[Entry]:
        descriptor = self._open_top()
        try:
            names = _list_names(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise ToolError(_explain(error, self._parts)) from error
        yield from self._visit(descriptor, names, self._parts, self._after)

    def _visit(self, descriptor: int, names: list[str], parts: Parts, after: tuple[bytes, ...]) -> Iterator[Entry]:
        """The entries ``names`` of the directory ``descriptor``, which is closed at the end."""
        try:
            for name in names:
                encoded = os.fsencode(name)
                if after and encoded < after[0]:
                    continue
                is_passed = bool(after) and encoded == after[0]
                entry = _make_entry(descriptor, name, (*parts, name))
                if entry is None:
                    continue
                if not is_passed:
                    yield entry
                if entry.kind is EntryKind.DIRECTORY:
                    yield from self._enter(descriptor, entry.parts, after[1:] if is_passed else ())
        finally:
            os.close(descriptor)

    def _enter(self, parent: int, parts: Parts, after: tuple[bytes, ...]) -> Iterator[Entry]:
        if self._max_depth == 1:
            return
        if len(parts) - len(self._parts) >= self._max_depth:
            self.skipped_directories += 1
            return
        try:
            descriptor = os.open(parts[-1], _OPEN_DIRECTORY, dir_fd=parent)
        except OSError:
            self.skipped_directories += 1
            return
        try:
            names = _list_names(descriptor)
        except OSError:
            os.close(descriptor)
            self.skipped_directories += 1
            return
        yield from self._visit(descriptor, names, parts, after)


def _list_names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        names = [entry.name for entry in islice(entries, MAX_DIRECTORY_ENTRIES + 1)]
    if len(names) > MAX_DIRECTORY_ENTRIES:
        raise OSError(errno.EFBIG, "too many entries")
    return sorted(names, key=os.fsencode)


def _make_entry(descriptor: int, name: str, parts: Parts) -> Entry | None:
    """``None``: it is gone since its name was read."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except OSError:
        return None
    kind = _to_kind(status.st_mode)
    return Entry(
        parts=parts,
        kind=kind,
        size_bytes=status.st_size if kind is EntryKind.FILE else None,
        modified_at=_to_time(status.st_mtime),
    )


def _to_time(timestamp: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(timestamp), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _to_kind(mode: int) -> EntryKind:
    return _KINDS.get(stat.S_IFMT(mode), EntryKind.OTHER)


def _open_regular(name: str, parent: int, parts: Parts) -> int:
    descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise _make_special_error(parts)


def _ascend(trail: list[int], parts: Parts) -> None:
    if len(trail) == 1:
        raise _make_outside_error(parts)
    os.close(trail.pop())


def _make_outside_error(parts: Parts) -> ToolError:
    return ToolError(f"{show_path(parts)!r} leads out of the workspace.")


def _make_special_error(parts: Parts) -> ToolError:
    return ToolError(f"{show_path(parts)!r} is neither a file nor a folder.")


def _explain(error: OSError, parts: Parts) -> str:
    reason = _REASONS.get(error.errno or 0, "cannot be opened, or was changed at the same time")
    return f"{show_path(parts)!r} {reason}."
