"""What is looked at, as a query string: every view has a link, and a link is all that a view is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

#: Prompts on a page.
PAGE = 25
SIDES = ("any", "chosen", "rejected")
ORDERS = ("desc", "asc")
#: Which prompts of two runs: those of both, of one alone, or those of which different things became.
WHICH = ("", "both", "a", "b", "differ")
MARGIN = "margin"
#: In place of a mark: prompts with pairs of which none has one.
UNMARKED = "none"
#: Characters of a value; nobody types more.
_LONGEST = 500


@dataclass(frozen=True)
class View:
    """``run`` says which of two runs is filtered and sorted, ``a`` or ``b``. ``reason`` is an outcome, ``score`` one
    whose values lie between ``low`` and ``high``, ``side`` whose value counts: ``any`` candidate's or that of one side
    of a pair. ``sort`` is a score or ``margin``. Empty means everything."""

    q: str = ""
    reason: str = ""
    policy: str = ""
    source: str = ""
    model: str = ""
    mark: str = ""
    score: str = ""
    low: str = ""
    high: str = ""
    side: str = "any"
    sort: str = ""
    order: str = "desc"
    run: str = "a"
    which: str = ""
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> View:
        """What a query string says; what nobody here wrote means nothing.

        >>> View.read({"q": "dog", "page": "x", "side": "left", "low": "1e3", "other": "1"})
        ... # doctest: +ELLIPSIS
        View(q='dog', reason='', ... low='1e3', high='', side='any', ... page=1)
        """
        given = {field.name: query[field.name][:_LONGEST].strip() for field in dataclasses.fields(cls)
                 if field.name in query}  # fmt: skip
        page = given.pop("page", "1")
        for name, allowed in (("side", SIDES), ("order", ORDERS), ("run", ("a", "b")), ("which", WHICH)):
            if given.get(name, allowed[0]) not in allowed:
                del given[name]
        for name in ("low", "high"):
            if name in given and number(given[name]) is None:
                del given[name]
        return cls(**given, page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 9 else 1)

    def link(self, **changes: object) -> str:
        """The query string of the view, or of one that differs in this.

        >>> View(q="a b").link(page=2), View().link()
        ('?q=a+b&page=2', '')
        """
        changed = dataclasses.replace(self, **changes)  # type: ignore[arg-type]
        values = {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(changed, field.name)) != field.default
        }
        return f"?{urlencode(values)}" if values else ""

    @property
    def query(self) -> View:
        """What decides which prompts are found, and in which order."""
        return dataclasses.replace(self, page=1)

    @property
    def filters(self) -> int:
        """How many things are asked for."""
        ranged = bool(self.score and (self.low or self.high))
        return ranged + sum(
            map(bool, (self.q, self.reason, self.policy, self.source, self.model, self.mark, self.which))
        )


def number(text: str) -> float | None:
    """
    >>> number("0.5"), number(""), number("nan"), number("x")
    (0.5, None, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def terms(q: str) -> list[str]:
    """What a text has to hold: words, and phrases in quotation marks.

    >>> terms('red "two boats" Sun')
    ['red', 'two boats', 'sun']
    """
    parts = q.lower().split('"')
    return [term for i, part in enumerate(parts) for term in ([part.strip()] if i % 2 else part.split()) if term]
