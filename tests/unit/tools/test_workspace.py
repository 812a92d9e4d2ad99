"""File tools see the workspace, all of it that is ordinary, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.authoring import ToolError
from tools.builtin.workspace import (
    MAX_DIRECTORY_ENTRIES,
    MAX_LINKS,
    MAX_WALK_DEPTH,
    EntryKind,
    Workspace,
    parse_path,
    show_path,
)

SECRET = "secret of the outside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    return folder


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open() -> Iterator[None]:
    before = {path.name for path in Path("/dev/fd").iterdir()}
    yield
    assert {path.name for path in Path("/dev/fd").iterdir()} == before


def read(root: Path, path: str) -> str:
    with Workspace(root) as workspace, workspace.open_file(parse_path(path)) as stream:
        return stream.read().decode()


def list_tree(root: Path, path: str = ".") -> list[str]:
    with Workspace(root) as workspace:
        return [show_path(entry.parts) for entry in workspace.walk_tree(parse_path(path))]


@pytest.mark.parametrize(
    "path",
    [
        "a/b.txt",
        "./a/./b.txt",
        "a//b.txt",
        "to_a/b.txt",
        "a/to_b",
        "absolute/b.txt",
        "up/b.txt",
        "a/deep/absolute/b.txt",
    ],
)
def test_what_is_inside_is_read_also_through_links(workspace: Path, path: str) -> None:
    (workspace / "a" / "deep").mkdir(parents=True)
    (workspace / "a" / "b.txt").write_text("hello")
    (workspace / "to_a").symlink_to("a")
    (workspace / "a" / "to_b").symlink_to("../to_a/./b.txt")
    (workspace / "absolute").symlink_to(workspace / "a")
    (workspace / "a" / "deep" / "absolute").symlink_to(workspace / "a")
    (workspace / "up").symlink_to("a/deep/..")
    assert read(workspace, path) == "hello"


def test_the_workspace_itself_may_be_a_link(workspace: Path, tmp_path: Path) -> None:
    (workspace / "a").write_text("hello")
    (tmp_path / "alias").symlink_to(workspace)
    (workspace / "absolute").symlink_to(tmp_path / "alias" / "a")
    assert read(tmp_path / "alias", "a") == read(tmp_path / "alias", "absolute") == "hello"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "//etc/hostname",
        "..",
        "../outside/secret",
        "a/../../outside/secret",
        "a/..",
        "a\0b",
        "\ud800",
        "x" * 4_097,
        "a/" * 65 + "b",
    ],
)
def test_paths_that_are_refused_unseen(path: str) -> None:
    with pytest.raises(ToolError):
        parse_path(path)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("file", "../outside/secret"),
        ("deep", "a/../../outside/secret"),
        ("absolute", "{outside}/secret"),
        ("beside", "{workspace}-2/secret"),
        ("round", "{workspace}/../outside/secret"),
        ("folder/secret", "../outside"),
        ("root/etc/hostname", "/"),
        ("chain", "chain_2"),
        ("itself", "itself"),
        ("dangling", "none"),
        ("self_parent", ".."),
    ],
)
def test_links_out_are_refused(workspace: Path, outside: Path, name: str, target: str) -> None:
    (workspace / "a").mkdir()
    (workspace / "chain_2").symlink_to("../outside/secret")
    beside = workspace.with_name(workspace.name + "-2")
    beside.mkdir()
    (beside / "secret").write_text(SECRET)
    link = workspace / name.partition("/")[0]
    link.symlink_to(target.format(outside=outside, workspace=workspace))
    with pytest.raises(ToolError) as caught:
        read(workspace, name)
    assert str(outside) not in caught.value.message
    with pytest.raises(ToolError), Workspace(workspace) as opened:
        opened.get_kind(parse_path(name))


def test_a_chain_of_links_is_bounded(workspace: Path) -> None:
    (workspace / "link_0").write_text("hello")
    for number in range(1, MAX_LINKS + 2):
        (workspace / f"link_{number}").symlink_to(f"link_{number - 1}")
    assert read(workspace, f"link_{MAX_LINKS}") == "hello"
    with pytest.raises(ToolError):
        read(workspace, f"link_{MAX_LINKS + 1}")


def test_special_files_are_refused_without_waiting(workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    (workspace / "to_pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(workspace / "socket"))
        for name in ("pipe", "to_pipe", "socket"):
            with pytest.raises(ToolError):
                read(workspace, name)
    with Workspace(workspace) as opened:
        kinds = {show_path(entry.parts): entry.kind for entry in opened.list_folder(())}
    assert kinds == {"pipe": EntryKind.OTHER, "socket": EntryKind.OTHER, "to_pipe": EntryKind.SYMLINK}


@pytest.mark.parametrize("path", ["none", "a/none", "file/below", "x" * 300])
def test_what_is_not_there(workspace: Path, path: str) -> None:
    (workspace / "a").mkdir()
    (workspace / "file").touch()
    with pytest.raises(ToolError) as caught:
        read(workspace, path)
    assert str(workspace) not in caught.value.message


def test_files_and_folders_are_not_taken_for_each_other(workspace: Path) -> None:
    (workspace / "folder").mkdir()
    (workspace / "file").touch()
    with pytest.raises(ToolError):
        read(workspace, "folder")
    with pytest.raises(ToolError):
        list_tree(workspace, "file")
    with Workspace(workspace) as opened:
        assert opened.get_kind(("folder",)) is EntryKind.DIRECTORY
        assert opened.get_kind(("file",)) is EntryKind.FILE
        assert opened.get_kind(()) is EntryKind.DIRECTORY


def test_a_missing_workspace_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError), Workspace(tmp_path / "none"):
        pass


def test_a_walk_is_sorted_and_does_not_follow_links(workspace: Path, outside: Path) -> None:
    for path in ("b/2", "b/10", "a/x/y", "a.txt", "Z"):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).touch()
    (workspace / "out").symlink_to(outside)
    (workspace / "loop").symlink_to(".")
    expected = ["Z", "a", "a/x", "a/x/y", "a.txt", "b", "b/10", "b/2", "loop", "out"]
    assert list_tree(workspace) == expected
    assert list_tree(workspace, "loop") == [f"loop/{path}" for path in expected]
    with Workspace(workspace) as opened:
        for position, path in enumerate(expected):
            after = tuple(part.encode() for part in path.split("/"))
            assert [show_path(entry.parts) for entry in opened.walk_tree((), after=after)] == expected[position + 1 :]


def test_a_walk_ends_at_its_depth_and_says_so(workspace: Path) -> None:
    (workspace.joinpath(*["d"] * (MAX_WALK_DEPTH + 2))).mkdir(parents=True)
    with Workspace(workspace) as opened:
        walk = opened.walk_tree(())
        assert len(list(walk)) == MAX_WALK_DEPTH
        assert walk.skipped_directories == 1
        flat = opened.list_folder(())
        assert (len(list(flat)), flat.skipped_directories) == (1, 0)


def test_a_folder_that_may_not_be_read_is_counted(workspace: Path) -> None:
    (workspace / "closed").mkdir(mode=0)
    (workspace / "open").mkdir()
    try:
        list((workspace / "closed").iterdir())
    except PermissionError:
        expected = 1
    else:
        expected = 0  # for the superuser nothing is closed
    with Workspace(workspace) as opened:
        walk = opened.walk_tree(())
        assert [show_path(entry.parts) for entry in walk] == ["closed", "open"]
        assert walk.skipped_directories == expected
    (workspace / "closed").chmod(0o700)


def test_a_folder_with_too_many_entries_is_refused_or_counted(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_DIRECTORY_ENTRIES > 10
    monkeypatch.setattr("tools.builtin.workspace.MAX_DIRECTORY_ENTRIES", 10)
    (workspace / "many").mkdir()
    for number in range(11):
        (workspace / "many" / str(number)).touch()
    with pytest.raises(ToolError):
        list_tree(workspace, "many")
    with Workspace(workspace) as opened:
        walk = opened.walk_tree(())
        assert [show_path(entry.parts) for entry in walk] == ["many"]
        assert walk.skipped_directories == 1


NAMES = st.sampled_from(
    ["", ".", "..", "a", "b", "in", "out", "up", "etc", "secret", "inner", "file", "\u00e9", " ", "~", "*"]
)
PATHS = st.builds(
    lambda lead, names, tail: lead + "/".join(names) + tail,
    st.sampled_from(["", "/", "./", "../"]),
    st.lists(NAMES, min_size=1, max_size=8),
    st.sampled_from(["", "/", "/.", "\0"]),
)
TARGETS = st.builds(
    lambda lead, names: lead + "/".join(names),
    st.sampled_from(["", "/", "{root}/", "{outside}/"]),
    st.lists(NAMES, min_size=1, max_size=5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, targets=st.lists(TARGETS, min_size=3, max_size=3))
def test_no_path_and_no_link_leads_out(workspace: Path, outside: Path, path: str, targets: list[str]) -> None:
    """What is read is what the system itself finds there, and only where that is inside."""
    for folder in ("a", "a/inner", "b"):
        (workspace / folder).mkdir(exist_ok=True)
        (workspace / folder / "file").write_text(f"inside {folder}")
    links = [workspace / name for name in ("in", "out", "a/up")]
    for link, target in zip(links, targets, strict=True):
        link.unlink(missing_ok=True)
        link.symlink_to((target.format(root=workspace, outside=outside) or ".").replace("\0", ""))
    try:
        text = read(workspace, path)
    except ToolError:
        return
    finally:
        for link in links:
            link.unlink()
    assert text.startswith("inside ")


@pytest.fixture
def swap_after_check(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[Path], None]], None]:
    """Have the next ``os.stat`` of that path's name put something else in its place: the worst moment of a race."""
    check = os.stat

    def arrange(path: Path, replace: Callable[[Path], None]) -> None:
        def check_and_swap(name: Any, **options: Any) -> os.stat_result:
            status = check(name, **options)
            if name == path.name and options.get("dir_fd") is not None:
                monkeypatch.setattr(os, "stat", check)
                path.rename(path.with_name("before"))
                replace(path)
            return status

        monkeypatch.setattr(os, "stat", check_and_swap)

    return arrange


SwapAfterCheck: TypeAlias = Callable[[Path, Callable[[Path], None]], None]


def test_a_folder_that_becomes_a_link_between_check_and_use_is_refused(
    workspace: Path, outside: Path, swap_after_check: SwapAfterCheck
) -> None:
    (workspace / "a").mkdir()
    (workspace / "a" / "secret").write_text("inside")
    swap_after_check(workspace / "a", lambda path: path.symlink_to(outside))
    with pytest.raises(ToolError):
        read(workspace, "a/secret")
    assert (workspace / "a").is_symlink()


@pytest.mark.parametrize(
    "replace",
    [
        lambda path: path.symlink_to("../outside/secret"),
        os.mkfifo,
        Path.mkdir,
        lambda _path: None,
    ],
)
def test_a_file_that_becomes_something_else_between_check_and_use_is_refused(
    workspace: Path, outside: Path, swap_after_check: SwapAfterCheck, replace: Callable[[Path], None]
) -> None:
    (workspace / "a").write_text("inside")
    swap_after_check(workspace / "a", replace)
    with pytest.raises(ToolError):
        read(workspace, "a")
    assert (workspace / "before").exists()


def test_a_link_that_becomes_a_file_between_check_and_use_is_refused(
    workspace: Path, swap_after_check: SwapAfterCheck
) -> None:
    (workspace / "b").touch()
    (workspace / "a").symlink_to("b")
    swap_after_check(workspace / "a", Path.touch)
    with pytest.raises(ToolError):
        read(workspace, "a")
    assert (workspace / "before").is_symlink()


def test_a_walk_does_not_enter_a_folder_that_becomes_a_link(
    workspace: Path, outside: Path, swap_after_check: SwapAfterCheck
) -> None:
    (workspace / "a").mkdir()
    swap_after_check(workspace / "a", lambda path: path.symlink_to(outside))
    with Workspace(workspace) as opened:
        walk = opened.walk_tree(())
        assert [show_path(entry.parts) for entry in walk] == ["a"]
        assert walk.skipped_directories == 1
