"""What a measured blindness means, in words and rows of a table: the same on the console, the card and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.blindness.contrasts import Clue
from pipeline.blindness.measure_blindness import HIGH, BlindAccuracy, Blindness

_NONE = "–"


class BlindRow(NamedTuple):
    """Of which pairs, how many, what share of them was told, and its interval."""

    name: str
    pairs: str
    value: str
    interval: str


def meaning(blindness: Blindness) -> str:
    """One sentence on the number and one on what follows.

    >>> meaning(Blindness(9, 9, None, None, "9 images; 20 are needed", 9, {}, ()))
    'How well the chosen text is told without the image is not known (9 images; 20 are needed).'
    """
    value, bounds = blindness.value, blindness.interval
    if value is None or bounds is None:
        return f"How well the chosen text is told without the image is not known ({blindness.unknown})."
    low, high = (f"{100 * bound:.1f}" for bound in bounds)
    told = (
        f"Without the image, the chosen text is told in {100 * value:.1f} % of the pairs (95 %: {low} to {high}; "
        "chance is 50 %)"
    )
    if bounds[0] <= 0.5:
        return f"{told}: what makes it better does not show in the texts alone."
    if value < HIGH:
        return f"{told}: so much of the preference can be learned without looking."
    return f"{told}: most of the preference can be learned without looking, which makes no model see better."


def extent(blindness: Blindness) -> str:
    """What was read.

    >>> extent(Blindness(9, 8, None, None, "8 images; 20 are needed", 12, {}, ()))
    '9 of 12 pairs, drawn by a hash, about 8 different images'
    """
    of_all = f"{blindness.pairs} pairs"
    if blindness.pairs < blindness.total:
        of_all = f"{blindness.pairs} of {blindness.total} pairs, drawn by a hash,"
    return f"{of_all} about {blindness.images} different images"


def rows(blindness: Blindness) -> list[BlindRow]:
    """All pairs, then those under each mark."""
    parts = {f"{kind}: {mark}": part for kind, of in blindness.parts.items() for mark, part in of.items()}
    return [blind_row(*row) for row in {"all": blindness, **parts}.items()]


def blind_row(name: str, accuracy: BlindAccuracy) -> BlindRow:
    value, bounds = accuracy.value, accuracy.interval
    return BlindRow(
        name,
        str(accuracy.pairs),
        f"{_NONE} ({accuracy.unknown})" if value is None else f"{value:.3f}",
        _NONE if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}",
    )


class Section(NamedTuple):
    """What card and report show."""

    meaning: str
    extent: str
    rows: list[BlindRow]
    clues: list[tuple[str, int, int]]


def section(blindness: Blindness | None) -> Section | None:
    if blindness is None:
        return None
    return Section(meaning(blindness), extent(blindness), rows(blindness), list(clue_rows(blindness.clues)))


def clue_rows(clues: Sequence[Clue]) -> Iterator[tuple[str, int, int]]:
    """(words, pairs with them on the chosen side alone, on the rejected side alone)."""
    for clue in clues:
        asked = f" where the prompt has {clue.prompt_word!r}" if clue.prompt_word is not None else ""
        yield f"{clue.word!r}{asked}", clue.chosen, clue.rejected


def markdown_table(header: Sequence[str], table: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *table]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def page(blindness: Blindness, readers: Mapping[str, BlindAccuracy]) -> str:
    """All of it as Markdown; ``readers`` are models that were asked about the same dataset."""
    header = ("pairs of", "pairs", "told", "95 %")
    parts = [f"{extent(blindness)}.", meaning(blindness)]
    parts.append(markdown_table(header, rows(blindness)))
    if readers:
        told_by = {"a classifier of the texts": blindness, **readers}
        parts.append(markdown_table(("told by", *header[1:]), [blind_row(*reader) for reader in told_by.items()]))
    if blindness.clues:
        table = list(clue_rows(blindness.clues))
        parts.append(markdown_table(("on one side alone", "chosen", "rejected"), table))
    return "\n\n".join(parts)
