"""Tools over the workspace's files: listing, reading, searching. How they are kept to it is ``tools.builtin.workspace``."""

from __future__ import annotations

import base64
import binascii
import codecs
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, BinaryIO

import msgspec

from tools.authoring import ToolContext, ToolError, tool
from tools.builtin.patterns import Glob, Match, Pattern, Regexp, compile_for_lines, compile_glob, find_matches
from tools.builtin.workspace import Entry, EntryKind, Parts, Workspace, is_exact, parse_path, show_path

MAX_LISTED = 1_000
MAX_VISITED = 50_000
MAX_LISTED_PATH_CHARACTERS = 262_144

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
    too_large: Annotated[int, msgspec.Meta(description=f"Above {MAX_SEARCHED_FILE_BYTES} bytes.")]
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
    entries: list[ListedEntry] = []
    remaining_characters = MAX_LISTED_PATH_CHARACTERS
    with Workspace(context.workspace) as workspace:
        walk = workspace.walk_tree(base, after=after) if recursive else workspace.list_folder(base, after=after)
        last: Parts | None = None
        for visited, entry in enumerate(walk):
            if len(entries) == limit or visited == MAX_VISITED or remaining_characters < 0:
                cursor_parts = last
                break
            last = entry.parts[len(base) :]
            if is_wanted(show_path(last)):
                entries.append(_show_entry(entry))
                remaining_characters -= len(entries[-1].path)
        else:
            cursor_parts = None
        return Listing(
            path=show_path(base),
            entries=entries,
            next_cursor=_encode_cursor(cursor_parts),
            skipped_directories=walk.skipped_directories,
        )
