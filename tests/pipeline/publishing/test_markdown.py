"""What others wrote is shown on a page word for word, and nothing in it is acted on."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.publishing import markdown

PAGE = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ATTACKS = [
    "a | b",
    "`code`",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "![seen](http://evil.example/pixel.png)",
    "[click](http://evil.example)",
    "<http://evil.example>",
    "https://evil.example www.evil.example",
    "---",
    "title\n---",
    "title\n===",
    "# heading",
    "> quoted",
    "- item\n+ item\n* item\n1. item\n2) item",
    "```\nfence\n```",
    "~~~\nfence",
    "~~gone~~ *soft* **loud** __loud__ _soft_",
    "|a|b|\n|-|-|\n|1|2|",
    "a\n:-",
    "[x]: http://evil.example\n\n[x]",
    "&lt;b&gt; &copy; &#60;",
    "\\| \\` \\",
    "$x$ $$y$$",
    "    indented",
    "a\u2028b\x0bc\x85d",
    "<!-- hidden",
    "[^1]",
    "***",
    "___",
]
TEXTS = st.one_of(
    st.sampled_from(ATTACKS),
    st.text("ab `*_[]()#+-.!|<>~&:/$=\\\n\t1", max_size=40),
    st.text(max_size=40),
)


def shown(page: str) -> str:
    """The text of a rendered page, its spaces made one."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def plain(text: str) -> str:
    return " ".join(markdown._CONTROL.sub("\ufffd", " ".join(text.splitlines())).split())


def tags(page: str) -> set[str]:
    return set(re.findall(r"<(\w+)", page))


@given(TEXTS)
def test_a_quotation_shows_its_text_and_nothing_else(text: str) -> None:
    page = PAGE.render(f"before\n\n{markdown.quote(text)}\n\nafter\n")
    assert tags(page) <= {"p", "blockquote"} and page.count("<blockquote>") == 1
    inner = page.split("<blockquote>")[1].split("</blockquote>")[0]
    assert shown(inner).replace(" ", "") == plain(text).replace(" ", "")


@given(TEXTS)
def test_text_stays_within_its_cell(text: str) -> None:
    page = PAGE.render(f"| a | b |\n|---|---|\n| {markdown.inline(text)} | {markdown.code(text)} |\n| 1 | 2 |\n")
    assert tags(page) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert (page.count("<tr>"), page.count("<td>")) == (3, 4)
    for cell in re.findall("<td>(.*?)</td>", page, re.S)[:2]:
        assert shown(cell).replace(" ", "") == plain(text).replace(" ", "")


@given(TEXTS)
def test_text_within_a_heading_stays_there(text: str) -> None:
    page = PAGE.render(f"### Pair ({markdown.code(text)}) {markdown.inline(text)} end\n\nafter\n")
    assert tags(page) <= {"h3", "p", "code"} and page.count("<h3>") == page.count("<p>") == 1


@given(TEXTS)
def test_a_block_holds_any_lines(text: str) -> None:
    page = PAGE.render(f"before\n\n{markdown.block(text, 'yaml')}\n\nafter\n")
    assert page.startswith("<p>before</p>") and page.endswith("<p>after</p>\n") and page.count("<pre>") == 1
    assert tags(page) == {"p", "pre", "code"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_without_care_it_would_be_acted_on(attack: str) -> None:
    """Negative control, of those that are no plain text."""
    page = PAGE.render("".join(f"> {line}\n" for line in attack.splitlines()))
    escaped = PAGE.render(markdown.quote(attack))
    harmless = {"a | b", "a\n:-", "https://evil.example www.evil.example", "$x$ $$y$$", "[^1]", "a\u2028b\x0bc\x85d"}
    assert attack in harmless or page != escaped


def test_only_an_address_of_the_web_is_a_link() -> None:
    assert "<a href" in PAGE.render(markdown.link("https://host.example/licence"))
    for place in ("javascript:alert(1)", "LICENSE", "https://a> <b", "file:///etc/passwd"):
        assert "<a" not in PAGE.render(markdown.link(place))
