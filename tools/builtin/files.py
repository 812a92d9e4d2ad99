"""Tools over the workspace's files: list, read, search. What keeps them to it is ``tools.builtin.workspace``."""

from __future__ import annotations

import base64
import binascii
import codecs
import enum
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, BinaryIO, NamedTuple

import msgspec

from tools.authoring import ToolContext, ToolError, tool
from tools.builtin.patterns import (
    Glob,
    Match,
    Pattern,
    Regexp,
    can_search,
    compile_for_lines,
    compile_glob,
    find_matches,
)
from tools.builtin.workspace import Entry, EntryKind, Parts, Walk, Workspace, is_exact, parse_path, show_path

MAX_LISTED = 1_000
MAX_VISITED = 50_000

MAX_READ_LINES = 10_000
MAX_READ_BYTES = 131_072
MAX_LINE_BYTES = 65_536
MAX_READABLE_FILE_BYTES = 67_108_864

MAX_MATCHES = 1_000
MAX_SEARCHED_FILES = 20_000
MAX_SEARCHED_FILE_BYTES = 2_097_152
MAX_SHOWN_LINE_CHARACTERS = 400
SHOWN_BEFORE_MATCH_CHARACTERS = 100
PROGRESS_REPORTS = 20

MAX_ANSWER_CHARACTERS = 200_000

_PROBED_BYTES = 8_192

WorkspacePath = Annotated[str, msgspec.Meta(max_length=4_096)]


class ListedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    path: Annotated[str, msgspec.Meta(description="Relative to the workspace.")]
    type: Annotated[EntryKind, msgspec.Meta(description="Links are named as such and not followed.")]
    size_bytes: Annotated[int | None, msgspec.Meta(description="Of files.")]
    modified_at: Annotated[datetime | None, msgspec.Meta(description="UTC.")]
    is_name_exact: Annotated[
        bool, msgspec.Meta(description="False: the name is not UTF-8, is shown with U+FFFD, and cannot be asked for.")
    ]


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    entries: list[ListedEntry]
    next_cursor: Annotated[str | None, msgspec.Meta(description="Give it back for the rest; null: this is all.")]
    skipped_directories: Annotated[int, msgspec.Meta(description="Not read: not permitted, too deep or too large.")]


class FileText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    text: str
    start_line: Annotated[int, msgspec.Meta(description="From 1.")]
    line_count: Annotated[int, msgspec.Meta(description="How many lines the text has.")]
    next_line: Annotated[int | None, msgspec.Meta(description="Where the rest starts; null: the file ends here.")]
    has_cut_lines: Annotated[bool, msgspec.Meta(description=f"Whether a line above {MAX_LINE_BYTES} bytes was cut.")]
    size_bytes: Annotated[int, msgspec.Meta(description="Of the whole file.")]


class FileMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(description="Relative to the workspace.")]
    line: Annotated[int, msgspec.Meta(description="From 1.")]
    column: Annotated[int, msgspec.Meta(description="From 1, in Unicode code points.")]
    text: Annotated[str, msgspec.Meta(description="The line, or of a long one what is around the match.")]


class SkippedFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    binary: Annotated[int, msgspec.Meta(description="Not UTF-8 text.")]
    too_large: Annotated[
        int, msgspec.Meta(description=f"Above {MAX_SEARCHED_FILE_BYTES} bytes, or too much for so large a pattern.")
    ]
    unreadable: Annotated[int, msgspec.Meta(description="Not permitted, or gone meanwhile.")]


class FileMatches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    matches: list[FileMatch]
    files_searched: int
    files_skipped: SkippedFiles
    skipped_directories: Annotated[int, msgspec.Meta(description="Not read: not permitted, too deep or too large.")]
    is_complete: Annotated[bool, msgspec.Meta(description="False: it stopped at the limit of matches or of files.")]


@tool(name="files.list", capabilities=["files.read"], idempotent=True, timeout_seconds=30)
def list_files(
    context: ToolContext,
    *,
    path: WorkspacePath = ".",
    recursive: bool = False,
    glob: Glob | None = None,
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED)] = 200,
    cursor: Annotated[str, msgspec.Meta(max_length=8_192)] | None = None,
) -> Listing:
    """List a folder of the workspace, sorted, each folder before what is in it.

    Args:
        path: The folder, relative to the workspace.
        recursive: Whether to list the folders in it too.
        glob: What to list, such as '*.md' (by name) or 'guide/**/*.md' (by path, from the folder on).
        limit: How many entries at most.
        cursor: The 'next_cursor' of an answer to the same question.
    """
    base = parse_path(path)
    is_wanted = _accept_all if glob is None else compile_glob(glob)
    after = _decode_cursor(cursor)
    with Workspace(context.workspace) as workspace:
        walk = workspace.walk_tree(base, after=after) if recursive else workspace.list_folder(base, after=after)
        entries, next_parts = _take_page(walk, depth=len(base), is_wanted=is_wanted, limit=limit)
        return Listing(
            path=show_path(base),
            entries=entries,
            next_cursor=_encode_cursor(next_parts),
            skipped_directories=walk.skipped_directories,
        )


@tool(name="files.read", capabilities=["files.read"], idempotent=True, timeout_seconds=30)
def read_file(
    context: ToolContext,
    path: WorkspacePath,
    *,
    start_line: Annotated[int, msgspec.Meta(ge=1)] = 1,
    max_lines: Annotated[int, msgspec.Meta(ge=1, le=MAX_READ_LINES)] = 1_000,
) -> FileText:
    """Read lines of a UTF-8 text file of the workspace.

    Args:
        path: The file, relative to the workspace.
        start_line: The first line to read, from 1.
        max_lines: How many lines at most; it may be fewer where lines are long.
    """
    parts = parse_path(path)
    with Workspace(context.workspace) as workspace, workspace.open_file(parts) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes > MAX_READABLE_FILE_BYTES:
            raise ToolError(f"{show_path(parts)!r} has {size_bytes} bytes; {MAX_READABLE_FILE_BYTES} can be read.")
        if b"\0" in stream.read(_PROBED_BYTES):
            raise _make_binary_error(parts)
        stream.seek(0)
        return _take_lines(stream, parts, start_line=start_line, max_lines=max_lines, size_bytes=size_bytes)


@tool(name="files.search", capabilities=["files.read", "files.search"], idempotent=True, timeout_seconds=120)
def search_files(
    context: ToolContext,
    pattern: Pattern,
    *,
    path: WorkspacePath = ".",
    glob: Glob | None = None,
    ignore_case: bool = False,
    max_matches: Annotated[int, msgspec.Meta(ge=1, le=MAX_MATCHES)] = 100,
) -> FileMatches:
    """Find a regular expression in the workspace's text files, line by line.

    Args:
        pattern: In RE2's syntax, so no look-around or back-references; '^' and '$' are a line's ends.
        path: The folder or the file to search, relative to the workspace.
        glob: Which files, such as '*.md' (by name) or 'guide/**/*.md' (by path, from the folder on).
        ignore_case: Whether upper and lower case are the same.
        max_matches: Where to stop.
    """
    base = parse_path(path)
    regexp = compile_for_lines(pattern=pattern, ignore_case=ignore_case)
    is_wanted = _accept_all if glob is None else compile_glob(glob)
    with Workspace(context.workspace) as workspace:
        candidates = _find_candidates(workspace, base, is_wanted)
        search = _Search(regexp=regexp, limit=max_matches)
        step = max(1, len(candidates.files) // PROGRESS_REPORTS)
        for position, parts in enumerate(candidates.files):
            if position % step == 0:
                message = f"{position} of {len(candidates.files)} files, {len(search.matches)} matches"
                context.progress(position / len(candidates.files), message)
            search.add_file(workspace, parts)
            if search.is_full:
                break
    return FileMatches(
        matches=search.matches,
        files_searched=search.files_searched,
        files_skipped=SkippedFiles(**{reason.value: search.skipped[reason] for reason in Skip}),
        skipped_directories=candidates.skipped_directories,
        is_complete=candidates.are_all and not search.is_full,
    )


class Skip(enum.Enum):
    """Why a file is not searched."""

    BINARY = "binary"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"


class _Candidates(NamedTuple):
    files: list[Parts]
    skipped_directories: int
    are_all: bool


class _Search:
    """What a search has found so far."""

    def __init__(self, *, regexp: Regexp, limit: int) -> None:
        self.matches: list[FileMatch] = []
        self.files_searched = 0
        self.skipped: Counter[Skip] = Counter()
        self.is_full = False
        """Whether there was a match more than there is room for."""
        self._regexp = regexp
        self._limit = limit
        self._remaining_characters = MAX_ANSWER_CHARACTERS

    def add_file(self, workspace: Workspace, parts: Parts) -> None:
        text = _read_text(workspace, parts)
        if isinstance(text, str) and not can_search(regexp=self._regexp, text=text):
            text = Skip.TOO_LARGE
        if isinstance(text, Skip):
            self.skipped[text] += 1
            return
        self.files_searched += 1
        for found in find_matches(regexp=self._regexp, text=text):
            # What follows the last line break is no line, though a pattern may match the nothing there.
            if found.start == len(text) and not text[found.start - found.column + 1 :]:
                return
            match = FileMatch(path=show_path(parts), line=found.line, column=found.column, text=_cut_line(text, found))
            self._remaining_characters -= len(match.path) + len(match.text)
            if len(self.matches) == self._limit or self._remaining_characters < 0:
                self.is_full = True
                return
            self.matches.append(match)


def _accept_all(_path: str) -> bool:
    return True


def _take_page(
    walk: Walk, *, depth: int, is_wanted: Callable[[str], bool], limit: int
) -> tuple[list[ListedEntry], Parts | None]:
    """The entries of one answer, and after which path the next one starts (``None``: there is no more)."""
    entries: list[ListedEntry] = []
    remaining_characters = MAX_ANSWER_CHARACTERS
    last: Parts = ()
    for visited, entry in enumerate(walk):
        if len(entries) == limit or visited == MAX_VISITED or remaining_characters < 0:
            return entries, last
        last = entry.parts[depth:]
        if is_wanted(show_path(last)):
            entries.append(_show_entry(entry))
            remaining_characters -= len(entries[-1].path)
    return entries, None


def _show_entry(entry: Entry) -> ListedEntry:
    return ListedEntry(
        name=show_path(entry.parts[-1:]),
        path=show_path(entry.parts),
        type=entry.kind,
        size_bytes=entry.size_bytes,
        modified_at=entry.modified_at,
        is_name_exact=is_exact(entry.parts),
    )


def _encode_cursor(parts: Parts | None) -> str | None:
    if parts is None:
        return None
    return base64.urlsafe_b64encode(os.fsencode("/".join(parts))).decode()


def _decode_cursor(cursor: str | None) -> tuple[bytes, ...]:
    if cursor is None:
        return ()
    try:
        return tuple(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).split(b"/"))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ToolError("The cursor is not one that this tool gave.") from error


def _take_lines(stream: BinaryIO, parts: Parts, *, start_line: int, max_lines: int, size_bytes: int) -> FileText:
    taken: list[str] = []
    taken_bytes = number = 0
    next_line: int | None = None
    has_cut_lines = False
    for number, (line, is_cut) in enumerate(_split_lines(stream), 1):
        if number < start_line:
            continue
        if len(taken) == max_lines or taken_bytes + len(line) > MAX_READ_BYTES:
            next_line = number
            break
        taken.append(_decode_line(line, parts, number, is_cut=is_cut))
        taken_bytes += len(line)
        has_cut_lines |= is_cut
    if start_line > max(number, 1):
        raise ToolError(f"{show_path(parts)!r} has {number} lines; start_line is past its end.")
    text = "".join(taken)
    return FileText(
        path=show_path(parts),
        text=text.removeprefix("\ufeff") if start_line == 1 else text,
        start_line=start_line,
        line_count=len(taken),
        next_line=next_line,
        has_cut_lines=has_cut_lines,
        size_bytes=size_bytes,
    )


def _split_lines(stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Each line with its line break, and whether it was cut for its length."""
    while line := stream.readline(MAX_LINE_BYTES):
        is_cut = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
        if is_cut:
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        yield line, is_cut


def _decode_line(line: bytes, parts: Parts, number: int, *, is_cut: bool) -> str:
    if b"\0" in line:
        raise _make_binary_error(parts)
    try:
        # A cut may go through a character; what is left of it is dropped.
        return codecs.getincrementaldecoder("utf-8")().decode(line, not is_cut) + ("\n" if is_cut else "")
    except UnicodeDecodeError as error:
        where = f"line {number}, byte {error.start + 1}"
        raise ToolError(f"{show_path(parts)!r} is not UTF-8 text: {where} is 0x{line[error.start]:02x}.") from error


def _make_binary_error(parts: Parts) -> ToolError:
    return ToolError(f"{show_path(parts)!r} is a binary file, not text.")


def _find_candidates(workspace: Workspace, base: Parts, is_wanted: Callable[[str], bool]) -> _Candidates:
    """The files to search. All are found first, so that progress is a fraction of something."""
    if workspace.get_kind(base) is EntryKind.FILE:
        return _Candidates([base] if is_wanted(show_path(base[-1:])) else [], 0, are_all=True)
    files: list[Parts] = []
    walk = workspace.walk_tree(base)
    for entry in walk:
        if entry.kind is not EntryKind.FILE or not is_wanted(show_path(entry.parts[len(base) :])):
            continue
        if len(files) == MAX_SEARCHED_FILES:
            return _Candidates(files, walk.skipped_directories, are_all=False)
        files.append(entry.parts)
    return _Candidates(files, walk.skipped_directories, are_all=True)


def _read_text(workspace: Workspace, parts: Parts) -> str | Skip:
    try:
        with workspace.open_file(parts) as stream:
            data = stream.read(MAX_SEARCHED_FILE_BYTES + 1)
    except (ToolError, OSError):
        return Skip.UNREADABLE
    if b"\0" in data:
        return Skip.BINARY
    if len(data) > MAX_SEARCHED_FILE_BYTES:
        return Skip.TOO_LARGE
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Skip.BINARY


def _cut_line(text: str, found: Match) -> str:
    """The match's line without its break; of a long one a window that begins a little before the match."""
    line_start = found.start - found.column + 1
    line_end = text.find("\n", found.start)
    line_end = len(text) if line_end == -1 else line_end
    if line_end - line_start > MAX_SHOWN_LINE_CHARACTERS:
        line_start = max(line_start, found.start - SHOWN_BEFORE_MATCH_CHARACTERS)
    return text[line_start : min(line_end, line_start + MAX_SHOWN_LINE_CHARACTERS)].rstrip("\r")
