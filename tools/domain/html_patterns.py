"""A schema's pattern as the ``pattern`` attribute of HTML, as far as both mean the same.

A schema's is searched for, in the syntax of ECMA-262 or RE2; HTML's must match the whole, in the strict syntax of
ECMA-262's ``v`` flag, and a browser complains on its console about one that it cannot read. So only what is surely
read alike is given; the server judges in any case.
"""

from __future__ import annotations

import re
from typing import Final

_CLASS_PART: Final = r"(?:\\[dDwWsS.\-\]\[^/]|[A-Za-z0-9_ .,:;@+*%#=!?]-[A-Za-z0-9]|[A-Za-z0-9_ .,:;@+*%#=!?])"
_TOKEN: Final = re.compile(
    r"\\[dDwWsSbB.*+?^$(){}|\[\]/\\]"
    rf"|\[\^?{_CLASS_PART}+-?\]"
    r"|\{[0-9]+(?:,[0-9]*)?\}"
    r"|\(\?:|\((?!\?)"
    r"|[A-Za-z0-9 _@:#%,;=~!<>&'\"/-]"
    r"|[.*?)|]|\+(?<![*+?}]\+)"
)
_DOUBLED: Final = re.compile(r"([&!#$%*+,.:;<=>?@^`~])\1")
"""Within a class two of these are reserved."""
_ANYTHING: Final = r"[\s\S]*"


def make_html_pattern(pattern: str) -> str | None:
    """The attribute's text; ``None``: a browser might read it otherwise, or not at all."""
    is_from_start, is_to_end = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    body = _translate(pattern[is_from_start : len(pattern) - is_to_end])
    # Each anchor would be of one side of the bar only.
    if body is None or (_has_open_bar(body) and (is_from_start or is_to_end)):
        return None
    grouped = f"(?:{body})" if _has_open_bar(body) else body
    return ("" if is_from_start else _ANYTHING) + grouped + ("" if is_to_end else _ANYTHING)


def _translate(text: str) -> str | None:
    position, parts = 0, []
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        piece = found[0]
        if piece.startswith("["):
            if _DOUBLED.search(piece):
                return None
            piece = f"{piece[:-2]}\\-]" if piece.endswith("-]") and not piece.endswith("\\-]") else piece
        parts.append(piece)
        position = found.end()
    try:
        re.compile("".join(parts))
    except re.error:
        return None
    return "".join(parts)


def _has_open_bar(text: str) -> bool:
    """Whether a bar stands in no group."""
    depth = 0
    for piece in _TOKEN.findall(text):
        depth += piece.startswith("(")
        depth -= piece == ")"
        if piece == "|" and depth == 0:
            return True
    return False
