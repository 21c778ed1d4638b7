"""Text of others in Markdown: what it says is shown, and nothing in it is acted on.

Of GitHub's dialect, which the Hub renders as well. A backslash takes the meaning of a character away, but in code,
where nothing has one but the backticks that end it.
"""

from __future__ import annotations

import re

#: Anywhere in a line. An underscore within a word means nothing, and names are full of them.
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)//|\bwww\.", re.I)
#: Where a line begins: headings, lists, rules, quotations, and what makes a heading of the line before.
_BEGINS = re.compile(r"^(?:>|(?:#{1,6}|[-+])(?=\s|$)|[-:=][-:=\s]*$|\d+(?=[.)](?:\s|$)))")
#: What a page cannot show, or what turns the text behind it around.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")


def inline(value: object) -> str:
    """Text within a line, a heading or a cell of a table.

    >>> print(inline("a|b <img src=x> ![c](http://d)"))
    a\\|b &lt;img src=x> !\\[c\\](http:\\/\\/d)
    """
    return _escape(str(value))


def quote(value: object) -> str:
    """Text as a quotation, line by line; none of its lines can end it.

    >>> print(quote("# A\\n- b"))
    > \\# A
    > \\- b
    """
    return "\n".join(f"> {_escape(line)}".rstrip() for line in str(value).splitlines() or [""])


def code(value: object) -> str:
    """Text as code within a line or a cell. Where code cannot hold it in a table, it is plain text.

    >>> code("a|b"), code("`")
    ('`a\\\\|b`', '\\\\`')
    """
    text = _words(str(value))
    if not text or "`" in text or "\\" in text:
        return _escape(text)
    return "`" + text.replace("|", "\\|") + "`"


def block(text: str, language: str = "") -> str:
    """Lines of code, fenced by more backticks than any of them has.

    >>> print(block("a ``` b", "yaml"))
    ````yaml
    a ``` b
    ````
    """
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def link(place: str) -> str:
    """An address that can be followed; of anything else, such as a file's name, the text.

    >>> print(link("https://host/a"), link("javascript:alert(1)"))
    <https://host/a> javascript:alert(1)
    """
    return f"<{place}>" if re.fullmatch(r"https?://[^\s<>\x00-\x1f]+", place) else inline(place)


def _words(text: str) -> str:
    return " ".join(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text).split())


def _escape(text: str) -> str:
    text = _ACTIVE.sub(_escaped, _words(text).replace("&", "&amp;").replace("<", "&lt;"))
    return _BEGINS.sub(_begun, text)


def _begun(match: re.Match[str]) -> str:
    begin = match[0]
    return f"{begin}\\" if begin.isdigit() else f"\\{begin}"  # "1\\." is no item of a list, "\\1." shows the backslash


def _escaped(match: re.Match[str]) -> str:
    text = match[0]
    return {"//": r"\/\/"}.get(text) or (f"\\{text}" if len(text) == 1 else f"{text[:-1]}\\.")
