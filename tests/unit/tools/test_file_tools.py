"""``files.list``, ``files.read`` and ``files.search`` over real folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.adapters import Invocation, get_adapter
from tools.authoring import Progress, ToolContext, ToolError, get_declared_tools
from tools.builtin import files
from tools.builtin.files import FileMatches, Listing, list_files, read_file, search_files
from tools.domain.schemas import find_violations


def write(root: Path, contents: dict[str, str | bytes]) -> None:
    for path, content in contents.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


TREE: dict[str, str | bytes] = {
    "README.md": "# Read me\nsearch me\n",
    "guide/first.md": "Search\nis é search\n",
    "guide/deep/second.txt": "nothing\n",
    "image.bin": b"\1\0\1\0 search",
}


def paths(listing: Listing) -> list[str]:
    return [entry.path for entry in listing.entries]


def test_list_a_folder(context: ToolContext, workspace: Path) -> None:
    write(workspace, TREE)
    os.utime(workspace / "README.md", (1_800_000_000, 1_800_000_000))
    listing = list_files(context)
    assert [(entry.name, entry.path, entry.type, entry.size_bytes) for entry in listing.entries] == [
        ("README.md", "README.md", "file", 20),
        ("guide", "guide", "directory", None),
        ("image.bin", "image.bin", "file", 11),
    ]
    assert listing.path == "."
    assert listing.next_cursor is None
    modified_at = listing.entries[0].modified_at
    assert modified_at is not None
    assert modified_at.isoformat() == "2027-01-15T08:00:00+00:00"


def test_list_a_tree_and_filter_it(context: ToolContext, workspace: Path) -> None:
    write(workspace, TREE)
    assert paths(list_files(context, path="guide", recursive=True)) == [
        "guide/deep",
        "guide/deep/second.txt",
        "guide/first.md",
    ]
    assert paths(list_files(context, recursive=True, glob="*.md")) == ["README.md", "guide/first.md"]
    assert paths(list_files(context, path="guide", recursive=True, glob="deep/*")) == ["guide/deep/second.txt"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_together_are_the_whole(
    context: ToolContext, workspace: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    write(workspace, {**TREE, "guide/deep/é": "", "z/a/b": ""})
    whole = paths(list_files(context, recursive=True))
    for visited in (1_000, 2):
        monkeypatch.setattr(files, "MAX_VISITED", visited)
        collected: list[str] = []
        cursor: str | None = None
        while True:
            page = list_files(context, recursive=True, limit=limit, cursor=cursor)
            assert len(page.entries) <= min(limit, visited)
            collected += paths(page)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert collected == whole


def test_a_cursor_outlives_its_file(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"a": "", "b": "", "c": ""})
    page = list_files(context, limit=2)
    (workspace / "b").unlink()
    assert paths(list_files(context, cursor=page.next_cursor)) == ["c"]


@pytest.mark.parametrize("cursor", ["é", "!", "YQ"])
def test_a_made_up_cursor_is_refused(context: ToolContext, cursor: str) -> None:
    with pytest.raises(ToolError):
        list_files(context, cursor=cursor)


def test_a_cursor_leads_nowhere_else(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"a/b": ""})
    outside = files._encode_cursor(("..", "..", "etc"))
    assert paths(list_files(context, recursive=True, cursor=outside)) == ["a", "a/b"]


def test_names_that_are_not_utf_8_are_shown_and_marked(context: ToolContext, workspace: Path) -> None:
    with open(os.fsencode(workspace) + b"/caf\xe9.txt", "w") as file:  # noqa: PTH123  # a name in bytes
        file.write("search me")
    write(workspace, {"b": "", "d": ""})
    entries = list_files(context).entries
    assert [(entry.name, entry.is_name_exact) for entry in entries] == [
        ("b", True),
        ("caf\ufffd.txt", False),
        ("d", True),
    ]
    page = list_files(context, limit=2)
    assert paths(list_files(context, cursor=page.next_cursor)) == ["d"]
    assert [match.path for match in search_files(context, "search").matches] == ["caf\ufffd.txt"]
    with pytest.raises(ToolError):
        read_file(context, "caf\ufffd.txt")


def test_long_listings_are_bounded_by_size(
    context: ToolContext, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, {f"{number}{'x' * 200}": "" for number in range(10)})
    monkeypatch.setattr(files, "MAX_ANSWER_CHARACTERS", 450)
    page = list_files(context)
    assert len(page.entries) == 3
    assert len(list_files(context, cursor=page.next_cursor).entries) == 3


def test_read_a_file(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"a.txt": "one\r\ntwo\né"})
    text = read_file(context, "a.txt")
    assert text.text == "one\r\ntwo\né"
    assert (text.start_line, text.line_count, text.next_line, text.size_bytes) == (1, 3, None, 11)
    assert not text.has_cut_lines


def test_read_a_file_in_pieces(context: ToolContext, workspace: Path) -> None:
    content = "".join(f"line {number}\n" for number in range(1, 26))
    write(workspace, {"a.txt": content})
    collected, next_line = "", 1
    while True:
        piece = read_file(context, "a.txt", start_line=next_line, max_lines=10)
        collected += piece.text
        if piece.next_line is None:
            break
        next_line = piece.next_line
    assert collected == content
    assert next_line == 21
    with pytest.raises(ToolError, match="25 lines"):
        read_file(context, "a.txt", start_line=26)


@pytest.mark.parametrize(
    ("content", "text", "line_count"),
    [("", "", 0), ("\n", "\n", 1), (b"\xef\xbb\xbfa", "a", 1), ("a\x01b", "a\x01b", 1)],
)
def test_read_small_things(
    context: ToolContext, workspace: Path, content: str | bytes, text: str, line_count: int
) -> None:
    write(workspace, {"a": content})
    read = read_file(context, "a")
    assert (read.text, read.line_count, read.next_line) == (text, line_count, None)


def test_what_is_read_at_once_is_bounded(context: ToolContext, workspace: Path) -> None:
    line = "x" * 999 + "\n"
    write(workspace, {"long": line * 300, "wide": "é" * 100_000 + "\nnext\n"})
    piece = read_file(context, "long")
    assert len(piece.text) <= files.MAX_READ_BYTES
    assert piece.next_line == 132
    wide = read_file(context, "wide")
    assert wide.text == "é" * (files.MAX_LINE_BYTES // 2) + "\nnext\n"
    assert (wide.line_count, wide.has_cut_lines, wide.next_line) == (2, True, None)


def test_a_cut_through_a_character_drops_it(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"wide": "a" + "é" * 100_000})
    assert read_file(context, "wide").text == "a" + "é" * (files.MAX_LINE_BYTES // 2 - 1) + "\n"


def test_a_file_that_is_too_large_is_refused(context: ToolContext, workspace: Path) -> None:
    with (workspace / "sparse").open("wb") as file:
        file.truncate(files.MAX_READABLE_FILE_BYTES + 1)
    with pytest.raises(ToolError, match=str(files.MAX_READABLE_FILE_BYTES)):
        read_file(context, "sparse")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\0b", "binary"),
        (b"a" * 10_000 + b"\0", "binary"),
        ("é".encode("latin-1"), "0xe9"),
        (b"ok\n\xff\xfe", "line 2, byte 1"),
    ],
)
def test_what_is_not_text_is_said_so(context: ToolContext, workspace: Path, content: bytes, reason: str) -> None:
    write(workspace, {"a": content})
    with pytest.raises(ToolError, match=reason):
        read_file(context, "a")


def test_a_binary_file_is_told_by_its_beginning_too(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"a": b"\0\nplain\n"})
    with pytest.raises(ToolError, match="binary"):
        read_file(context, "a", start_line=2)


def found(result: FileMatches) -> list[tuple[str, int, int, str]]:
    return [(match.path, match.line, match.column, match.text) for match in result.matches]


def test_search_the_workspace(context: ToolContext, workspace: Path) -> None:
    write(workspace, {**TREE, "windows.txt": "a search\r\n", "broken.txt": b"\xff search"})
    result = search_files(context, "search", ignore_case=True)
    assert found(result) == [
        ("README.md", 2, 1, "search me"),
        ("guide/first.md", 1, 1, "Search"),
        ("guide/first.md", 2, 6, "is é search"),
        ("windows.txt", 1, 3, "a search"),
    ]
    assert (result.files_searched, result.files_skipped.binary, result.is_complete) == (4, 2, True)
    assert [match.path for match in search_files(context, "search", glob="*.md").matches] == [
        "README.md",
        "guide/first.md",
    ]
    assert [match.path for match in search_files(context, "search", path="guide").matches] == ["guide/first.md"]
    assert [match.path for match in search_files(context, "me$", path="README.md").matches] == ["README.md"] * 2


def test_search_is_line_by_line(context: ToolContext, workspace: Path) -> None:
    write(workspace, {"a": "one\n\ntwo\n", "empty": ""})
    assert found(search_files(context, "^$")) == [("a", 2, 1, "")]
    assert found(search_files(context, r"one\s+two")) == []
    assert [match[:2] for match in found(search_files(context, "^"))] == [("a", 1), ("a", 2), ("a", 3)]


def test_a_search_stops_at_its_limits(context: ToolContext, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(workspace, {"a": "x\nx\n", "b": "x\n", "c": "y" * 500 + "x" + "y" * 500})
    exact = search_files(context, "x", max_matches=4)
    assert (len(exact.matches), exact.is_complete) == (4, True)
    assert "x" in exact.matches[3].text
    assert len(exact.matches[3].text) == files.MAX_SHOWN_LINE_CHARACTERS
    more = search_files(context, "x", max_matches=2)
    assert (len(more.matches), more.is_complete) == (2, False)
    with monkeypatch.context() as patched:
        patched.setattr(files, "MAX_SEARCHED_FILES", 1)
        few = search_files(context, "x")
        assert (few.files_searched, few.is_complete) == (1, False)
    monkeypatch.setattr(files, "MAX_ANSWER_CHARACTERS", 5)
    short = search_files(context, "x")
    assert (len(short.matches), short.is_complete) == (2, False)


def test_what_a_search_skips_is_counted(context: ToolContext, workspace: Path) -> None:
    write(
        workspace,
        {"a": "x", "large": b"x" * (files.MAX_SEARCHED_FILE_BYTES + 1), "fits": b"y" * files.MAX_SEARCHED_FILE_BYTES},
    )
    (workspace / "out").symlink_to("/etc")
    os.mkfifo(workspace / "pipe")
    result = search_files(context, "x")
    assert found(result) == [("a", 1, 1, "x")]
    assert (result.files_searched, result.files_skipped.too_large, result.files_skipped.unreadable) == (2, 1, 0)
    wide = search_files(context, "x|" + "[ab]{1000}" * 9)
    assert found(wide) == [("a", 1, 1, "x")]
    assert (wide.files_searched, wide.files_skipped.too_large) == (1, 2)


def test_a_search_reports_its_progress(context: ToolContext, workspace: Path, reports: list[Progress]) -> None:
    write(workspace, {f"{number:03}": "x" for number in range(100)})
    search_files(context, "x", max_matches=1_000)
    fractions = [report.fraction or 0 for report in reports]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] >= 0.9
    assert 10 <= len(reports) <= 25
    assert all(report.message for report in reports)


@pytest.mark.parametrize("tool", [list_files, read_file, search_files])
def test_without_a_workspace_nothing_is_read(
    make_context: Callable[..., ToolContext], tool: Callable[..., object]
) -> None:
    arguments = {list_files: {}, read_file: {"path": "a"}, search_files: {"pattern": "a"}}[tool]
    with pytest.raises(ToolError, match="MCP_WORKSPACE"):
        tool(make_context(), **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files.list", {"recursive": True, "limit": 2}),
        ("files.list", {"glob": "*.md"}),
        ("files.read", {"path": "README.md"}),
        ("files.search", {"pattern": "(?i)search"}),
    ],
)
def test_as_the_worker_calls_them_inputs_and_outputs_satisfy_the_published_schemas(
    context: ToolContext, workspace: Path, name: str, value: dict[str, Any]
) -> None:
    write(workspace, TREE)
    specification = get_declared_tools()[f"{name}@1.0.0"]
    assert specification.is_idempotent
    assert specification.input_schema["properties"].get("context") is None
    assert find_violations(schema=specification.input_schema, instance=value) == []
    invocation = Invocation(
        entry_point=specification.entry_point,
        tool=name,
        version="1.0.0",
        definition_hash=specification.definition_hash,
        input=value,
    )
    output = get_adapter(specification.adapter).run(invocation=invocation, context=context)
    assert find_violations(schema=specification.output_schema, instance=output) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files.list", {"limit": 0}),
        ("files.list", {"limit": 1_001}),
        ("files.list", {"depth": 3}),
        ("files.read", {}),
        ("files.read", {"path": 1}),
        ("files.read", {"path": "a", "start_line": 0}),
        ("files.search", {"pattern": ""}),
        ("files.search", {"pattern": "a" * 1_001}),
        ("text.search", {"pattern": "a", "text": "a", "max_matches": 0}),
        ("text.count_words", {"text": None}),
    ],
)
def test_inputs_that_the_schemas_refuse(name: str, value: dict[str, Any]) -> None:
    assert find_violations(schema=get_declared_tools()[f"{name}@1.0.0"].input_schema, instance=value)
