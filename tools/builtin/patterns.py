"""Patterns from strangers: regular expressions and file globs, all matched by RE2 in time linear in the text.

Nothing here backtracks, and nothing compiles to more than a few megabytes. But "linear" has a factor, the compiled
pattern's size, and a search cannot be interrupted: so groups are few, and pattern and text are bounded together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
import re2

from tools.authoring import ToolError

MAX_PATTERN_CHARACTERS = 1_000
MAX_PATTERN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_WORK = 4_000_000_000
"""Instructions of the compiled pattern times characters. The worst patterns tried took 5.6 ns each, most far less."""
MAX_GROUPS = 20
"""What a search costs grows with the groups: with 150 a hostile pattern took 10 s of a megabyte, uninterruptibly."""

Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATTERN_CHARACTERS)]
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATTERN_CHARACTERS)]
Regexp: TypeAlias = Any
"""A compiled pattern; the library has no types."""

# It matches single bytes, so that offsets would point into the middle of characters.
_SINGLE_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Where a pattern was found. Lines and columns count from 1, columns in code points; lines end at ``\\n``."""

    line: int
    column: int
    start: int
    """Offset into the text in code points."""
    text: str
    groups: tuple[str | None, ...]


def compile_for_text(*, pattern: str, ignore_case: bool) -> Regexp:
    """For a text as a whole: a match may span lines, ``^`` and ``$`` are the text's ends unless ``(?m)`` is set.

    Raises:
        ToolError: RE2 does not take it; the message is RE2's reason.
    """
    return _compile(pattern, _make_options(ignore_case=ignore_case))


def compile_for_lines(*, pattern: str, ignore_case: bool) -> Regexp:
    """For a text's lines, one by one: a match never spans lines, ``^`` and ``$`` are a line's ends.

    Raises:
        ToolError: as above.
    """
    options = _make_options(ignore_case=ignore_case)
    options.never_nl = True
    return _compile(f"(?m){pattern}", options)


def can_search(*, regexp: Regexp, text: str) -> bool:
    """Whether searching the text once is sure to take seconds at most, whatever the pattern does to the engine."""
    return bool(regexp.programsize * len(text) <= MAX_WORK)


def find_matches(*, regexp: Regexp, text: str) -> Iterator[Match]:
    """The matches in ``text``, in order, none overlapping another, lazily; each in time linear in the text at most."""
    line, line_start, position, previous = 1, 0, 0, None
    for found in regexp.finditer(text):
        start = found.start()
        # The library gives an empty match that it had to look ahead for twice.
        if found.span() == previous:
            continue
        previous = found.span()
        line += text.count("\n", position, start)
        line_start = text.rfind("\n", position, start) + 1 or line_start
        position = start
        yield Match(line=line, column=start - line_start + 1, start=start, text=found.group(), groups=found.groups())


def compile_glob(glob: str) -> Callable[[str], bool]:
    """A predicate over relative paths. Without a ``/`` the glob is matched with the name alone, at any depth.

    ``*`` and ``?`` stop at ``/``; ``**/`` stands for any number of folders, none included.

    Raises:
        ToolError: the glob has a wrong range.
    """
    options = _make_options(ignore_case=False)
    options.dot_nl = True
    regexp = _compile(_translate_glob(glob), options)
    if "/" in glob:
        return lambda path: regexp.fullmatch(path) is not None
    return lambda path: regexp.fullmatch(path.rpartition("/")[2]) is not None


def _make_options(*, ignore_case: bool) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_PATTERN_MEMORY_BYTES
    options.case_sensitive = not ignore_case
    return options


def _compile(pattern: str, options: Any) -> Regexp:
    if _SINGLE_BYTE.search(pattern):
        raise ToolError(r"The pattern is not valid: \C is not supported.")
    try:
        regexp = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ToolError(f"The pattern is not valid: {text}.") from error
    except UnicodeEncodeError as error:
        raise ToolError("The pattern is not valid: it is not Unicode text.") from error
    if regexp.groups > MAX_GROUPS:
        raise ToolError(
            f"The pattern is not valid: it has more than {MAX_GROUPS} groups; write '(?:…)' where none is read."
        )
    return regexp


def _translate_glob(glob: str) -> str:
    translated, position = "", 0
    while position < len(glob):
        piece, taken = _translate_piece(glob, position)
        translated += piece
        position += taken
    return translated


def _translate_piece(glob: str, position: int) -> tuple[str, int]:
    """The pattern for what stands at ``position``, and how many characters that is."""
    is_component_start = position == 0 or glob[position - 1] == "/"
    if is_component_start and glob.startswith("**/", position):
        return "(?:[^/]+/)*", 3
    if glob.startswith("**", position):
        return ".*", 2
    character = glob[position]
    if character == "*":
        return "[^/]*", 1
    if character == "?":
        return "[^/]", 1
    end = glob.find("]", position + 2) if character == "[" else -1
    if end == -1:
        return str(re2.escape(character)), 1
    members = glob[position + 1 : end]
    negation = "^/" if members[0] in "!^" else ""
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", members[1:] if negation else members)
    return f"[{negation}{escaped}]", end + 1 - position
