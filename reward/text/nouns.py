"""How noun phrases are written: another number, another attribute, another noun in the place of one."""

from __future__ import annotations

from collections.abc import Mapping

from reward.text.lexicon import Lexicon, article
from reward.text.noun_phrases import Attribute, Phrase


def phrase_of(name: str, count: int | None, words: tuple[str, ...], lexicon: Lexicon) -> str | None:
    """A noun phrase that brings an object up; without a number for an unknown one. None where the vocabulary has no
    such form of the noun.

    >>> from pipeline.scenes.scene_words import scenes
    >>> phrase_of("mouse", 2, ("red",), scenes()), phrase_of("cup", 1, ("orange",), scenes())
    ('two red mice', 'an orange cup')
    """
    noun = lexicon.noun(name, many=(count or 1) > 1)
    if noun is None:
        return None
    rest = " ".join((*words, noun))
    if count is None or count == 1:
        return rest if lexicon.plural(noun) else f"{article(rest)} {rest}"
    return f"{lexicon.number(count)} {rest}"


def change_phrase(
    text: str,
    phrase: Phrase,
    lexicon: Lexicon,
    words: Mapping[Attribute, str | None] | None = None,
    count: int | None = 0,
    name: str | None = None,
) -> str | None:
    """The noun phrase with other words for some of its attributes (None: without them), with another ``count`` (0: as
    it is, None: without a number), about another object. None where the vocabulary has no such form of the noun.

    Words that stand between them stay, and so does a capital at the beginning.
    """
    many = lexicon.plural(phrase.surface) if count == 0 else count is None or count > 1
    noun: str | None = text[slice(*phrase.noun)]
    if name is not None:
        noun = lexicon.noun(name, bool(many))
    elif many is not None and many is not lexicon.plural(phrase.surface):
        noun = lexicon.form(phrase.surface, many)
    if noun is None:
        return None
    pieces = [(part.start, part.end, word) for part, word in (words or {}).items() if part.end <= phrase.end]
    begin = phrase.determiner[1] if phrase.determiner else phrase.start
    rest, at = "", begin
    for start, end, word in sorted([*pieces, (*phrase.noun, noun)], key=lambda piece: piece[0]):
        rest += text[at:start]
        rest = rest + word if word is not None else rest.rstrip()
        at = end
    rest = rest.strip()
    old = text[slice(*phrase.determiner)] if phrase.determiner else ""
    if count is None:
        new = ""
    elif count == 1:
        new = article(rest) if lexicon.articles_count else lexicon.number(1)
    elif count:
        new = lexicon.number(count)
    else:
        new = article(rest) if old.lower() in ("a", "an") else old
    made = f"{new} {rest}" if new else rest
    return made[:1].upper() + made[1:] if text[phrase.start].isupper() else made
