"""``text.count_words`` and ``text.search``, and the patterns that the file tools use too."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.authoring import ToolError, get_declared_tools
from tools.builtin.patterns import compile_for_lines, compile_for_text, compile_glob, find_matches
from tools.builtin.text import MAX_PIECE_CHARACTERS, Counts, count_words, search_text
from tools.domain.schemas import find_violations
from tools.domain.signatures import encode_output


@pytest.mark.parametrize(
    ("text", "words", "lines", "characters"),
    [
        ("", 0, 0, 0),
        (" ", 0, 1, 1),
        ("\n", 0, 1, 1),
        ("one", 1, 1, 3),
        ("one\n", 1, 1, 4),
        ("one\ntwo", 2, 2, 7),
        ("one\r\ntwo\r\n", 2, 2, 10),
        ("don't say 1,000 twenty-one", 4, 1, 26),
        ("a\u00a0b\u3000c", 3, 1, 5),
        ("\u00e9 e\u0301", 2, 1, 4),
        ("日本語 👩‍💻", 2, 1, 7),
        ("\n\n\n", 0, 3, 3),
    ],
)
def test_counts(text: str, words: int, lines: int, characters: int) -> None:
    assert count_words(text) == Counts(words=words, lines=lines, characters=characters)


@given(st.text(st.characters() | st.sampled_from(" \n\t\r\u2003ab")))
def test_counts_are_those_of_a_plain_count(text: str) -> None:
    words, in_word = 0, False
    for character in text:
        is_space = character.isspace()
        words += in_word is False and not is_space
        in_word = not is_space
    lines = len(re.findall(r"[^\n]*\n|[^\n]+", text))
    assert count_words(text) == Counts(words=words, lines=lines, characters=sum(1 for _ in text))


def test_composing_a_text_changes_its_characters_and_not_its_words() -> None:
    text = "élève naïve"
    decomposed = unicodedata.normalize("NFD", text)
    assert count_words(decomposed).words == count_words(text).words
    assert count_words(decomposed).characters > count_words(text).characters


def found(pattern: str, text: str) -> list[tuple[int, int, str]]:
    regexp = compile_for_text(pattern=pattern, ignore_case=False)
    return [(match.line, match.column, match.text) for match in find_matches(regexp=regexp, text=text)]


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a", "banana", [(1, 2, "a"), (1, 4, "a"), (1, 6, "a")]),
        ("b", "éb\n日本b👩b", [(1, 2, "b"), (2, 3, "b"), (2, 5, "b")]),
        ("é+", "aéé\né", [(1, 2, "éé"), (2, 1, "é")]),
        ("^b", "a\nb", []),
        ("(?m)^b$", "a\nb\n", [(2, 1, "b")]),
        ("(?m)^$", "a\n\nb", [(2, 1, "")]),
        ("x*", "éx", [(1, 1, ""), (1, 2, "x"), (1, 3, "")]),
        ("$", "a\n", [(2, 1, "")]),
        (r"a\nb", "xa\nb", [(1, 2, "a\nb")]),
        ("(?s)a.*", "za\nb", [(1, 2, "a\nb")]),
        (r"\b日本\b", "a 日本", []),
        ("日本", "a 日本", [(1, 3, "日本")]),
        (r"\\C", r"a\C", [(1, 2, r"\C")]),
    ],
)
def test_lines_and_columns(pattern: str, text: str, matches: list[tuple[int, int, str]]) -> None:
    assert found(pattern, text) == matches


@given(st.text("aé日\n ", max_size=30), st.sampled_from(["a", "é+", "[^a]", "a*", "(?m)^", "日|$"]))
def test_a_match_stands_where_its_line_and_column_say(text: str, pattern: str) -> None:
    lines = text.split("\n")
    for line, column, match in found(pattern, text):
        start = sum(len(one) + 1 for one in lines[: line - 1]) + column - 1
        assert text.startswith(match, start)
        assert column <= len(lines[line - 1]) + 1


@given(st.text("ab\n", max_size=20), st.sampled_from(["a", "ab", "a+b", "[ab]+", "(?m)^a", "(?m)b$", r"\n"]))
def test_matches_that_are_not_empty_are_those_of_python(text: str, pattern: str) -> None:
    expected = [match.span() for match in re.finditer(pattern, text)]
    regexp = compile_for_text(pattern=pattern, ignore_case=False)
    spans = [(match.start, match.start + len(match.text)) for match in find_matches(regexp=regexp, text=text)]
    assert spans == expected


def test_search_gives_groups_and_case() -> None:
    result = search_text(r"(?P<key>\w+)=(\d+)?", "A=1 b=", ignore_case=True)
    assert [(match.match, match.groups) for match in result.matches] == [("A=1", ["A", "1"]), ("b=", ["b", None])]
    assert result.is_complete
    assert [match.match for match in search_text("É", "éÉ", ignore_case=True).matches] == ["é", "É"]
    assert [match.match for match in search_text("É", "éÉ").matches] == ["É"]


def test_search_stops_at_its_limits() -> None:
    exact = search_text("a", "aaa", max_matches=3)
    assert (len(exact.matches), exact.is_complete) == (3, True)
    more = search_text("a", "aaaa", max_matches=3)
    assert (len(more.matches), more.is_complete) == (3, False)
    (long,) = search_text("(a+)", "a" * 100_000).matches
    assert long.match == long.groups[0] == "a" * MAX_PIECE_CHARACTERS
    wide = search_text("(?:(a)" + "|(a)" * 18 + "|(b{900}))", "b" * 100_000, max_matches=1_000)
    assert not wide.is_complete
    assert 0 < len(wide.matches) < 111


@pytest.mark.parametrize(
    "pattern",
    ["(", "a{2000}", "(?=a)", r"(a)\1", "[z-a]", r"\C", r"a\\\C", "\udc80", "((a{100}){100}){100}", "(a)" * 21],
)
def test_a_bad_pattern_is_the_callers_mistake(pattern: str) -> None:
    with pytest.raises(ToolError, match=r"^The pattern is not valid: .+\.$"):
        search_text(pattern, "a")


def test_a_pattern_that_is_too_large_for_its_text_is_refused_before_it_takes_long() -> None:
    pattern = "a" + "[ab]{1000}" * 9 + "c"
    text = "ab" * 500_000
    started = time.process_time()
    with pytest.raises(ToolError):
        search_text(pattern, text)
    assert time.process_time() - started < 2
    assert search_text(pattern, text[:1_000]).is_complete


def test_a_text_with_a_lone_surrogate_is_the_callers_mistake() -> None:
    with pytest.raises(ToolError):
        search_text("a", "a\ud800")


def test_a_line_pattern_never_leaves_its_line() -> None:
    text = "one a\nb two\n\nthree"
    for pattern, expected in (
        (r"[^x]+", ["one a", "b two", "three"]),
        (r"a\s+b", []),
        ("^b", ["b"]),
        ("a$|o$", ["a", "o"]),
        ("(?s)a.*b", []),
    ):
        regexp = compile_for_lines(pattern=pattern, ignore_case=False)
        assert [match.text for match in find_matches(regexp=regexp, text=text) if match.text] == expected


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("*.md", ["a.md", "x/y/a.md", ".md"], ["a.mdx", "md", "a.md/x"]),
        ("a?.txt", ["ab.txt", "x/aé.txt"], ["a.txt", "abc.txt"]),
        ("docs/*.md", ["docs/a.md"], ["a.md", "docs/x/a.md", "x/docs/a.md"]),
        ("docs/**/*.md", ["docs/a.md", "docs/x/y/a.md"], ["a.md"]),
        ("**/a", ["a", "x/a", "x/y/a"], ["ab", "xa"]),
        ("docs/**", ["docs/a", "docs/x/y"], ["docs", "docsa"]),
        ("[ab]*", ["a", "bc"], ["c"]),
        ("[!ab]", ["c"], ["a", "cc"]),
        ("[^a]", ["b"], ["a"]),
        ("a[", ["a["], ["a"]),
        ("[]]", ["]"], ["["]),
        ("(a|b)+.$", ["(a|b)+.$"], ["ab"]),
        ("*", ["a\nb"], []),
    ],
)
def test_globs(glob: str, matching: list[str], others: list[str]) -> None:
    is_wanted = compile_glob(glob)
    assert [path for path in matching if not is_wanted(path)] == []
    assert [path for path in others if is_wanted(path)] == []


def test_a_bad_glob_is_the_callers_mistake() -> None:
    with pytest.raises(ToolError):
        compile_glob("[z-a]")


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("text.count_words@1.0.0", count_words("a b\nc")),
        ("text.search@1.0.0", search_text("(a)|(b)", "ab")),
    ],
)
def test_outputs_satisfy_the_published_schemas(name: str, output: object) -> None:
    specification = get_declared_tools()[name]
    assert find_violations(schema=specification.output_schema, instance=encode_output(value=output)) == []
    assert specification.is_idempotent
