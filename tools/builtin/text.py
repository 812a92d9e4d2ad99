"""Tools over a text that the caller sends: counting and searching. Tools over files are ``tools.builtin.files``."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tools.authoring import ToolError, tool
from tools.builtin.patterns import Pattern, can_search, compile_for_text, find_matches

MAX_MATCHES = 1_000
MAX_PIECE_CHARACTERS = 1_000
MAX_ANSWER_CHARACTERS = 200_000

Bound = Annotated[int, msgspec.Meta(ge=1, le=MAX_MATCHES)]


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    words: Annotated[int, msgspec.Meta(description="Runs of characters that are not white space.")]
    lines: Annotated[
        int, msgspec.Meta(description="Lines; a last one without a line break counts, an empty text has 0.")
    ]
    characters: Annotated[int, msgspec.Meta(description="Unicode code points, line breaks included.")]


class TextMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    line: Annotated[int, msgspec.Meta(description="From 1.")]
    column: Annotated[int, msgspec.Meta(description="From 1, in Unicode code points.")]
    match: Annotated[str, msgspec.Meta(description=f"What matched, cut at {MAX_PIECE_CHARACTERS} characters.")]
    groups: Annotated[
        list[str | None],
        msgspec.Meta(description="The pattern's groups, cut likewise; null: took no part in the match."),
    ]


class TextMatches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    matches: list[TextMatch]
    is_complete: Annotated[bool, msgspec.Meta(description="False: there are more, left out by the limit or for size.")]


@tool(name="text.count_words", capabilities=["text.analysis"], idempotent=True, timeout_seconds=10)
def count_words(text: str) -> Counts:
    """Count the words, lines and characters of a text.

    Words are runs of what Unicode does not call white space, so "don't" and "1,000" are one each. Lines end at a line
    feed; as in an editor and unlike ``wc``, a last line without one counts too. Characters are code points: "é" is 1 or
    2 of them, as it was typed.

    Args:
        text: The text to count.
    """
    has_open_line = text != "" and not text.endswith("\n")
    return Counts(words=len(text.split()), lines=text.count("\n") + has_open_line, characters=len(text))


@tool(name="text.search", capabilities=["text.analysis", "text.search"], idempotent=True, timeout_seconds=30)
def search_text(pattern: Pattern, text: str, *, ignore_case: bool = False, max_matches: Bound = 100) -> TextMatches:
    """Find a regular expression in a text, with line, column and groups of each match.

    Args:
        pattern: In RE2's syntax, so no look-around or back-references; '^' and '$' are the text's ends, after '(?m)' a
            line's.
        text: The text to search.
        ignore_case: Whether upper and lower case are the same.
        max_matches: Where to stop.
    """
    regexp = compile_for_text(pattern=pattern, ignore_case=ignore_case)
    if not can_search(regexp=regexp, text=text):
        raise ToolError("The pattern is too large for so long a text: repeat less in it, or search the text in parts.")
    matches: list[TextMatch] = []
    remaining_characters = MAX_ANSWER_CHARACTERS
    try:
        for found in find_matches(regexp=regexp, text=text):
            groups = [None if group is None else group[:MAX_PIECE_CHARACTERS] for group in found.groups]
            match = found.text[:MAX_PIECE_CHARACTERS]
            # A group or match that is empty still takes its quotes and comma.
            remaining_characters -= len(match) + sum(len(group or "") + 4 for group in groups) + 4
            if len(matches) == max_matches or remaining_characters < 0:
                return TextMatches(matches=matches, is_complete=False)
            matches.append(TextMatch(line=found.line, column=found.column, match=match, groups=groups))
    except UnicodeEncodeError as error:
        raise ToolError("The text is not Unicode: it holds a lone surrogate.") from error
    return TextMatches(matches=matches, is_complete=True)
