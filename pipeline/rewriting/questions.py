"""Questions about an image from what descriptions of it got wrong: yes or no as in POPE, or with a short answer.

As in HA-DPO, which turns descriptions into questions; the wording of existence questions is POPE's (Li et al. 2023,
"Evaluating Object Hallucination in Large Vision-Language Models").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from reward.text.cooccurrence import Cooccurrence
from reward.text.known import Known, Thing
from reward.text.lexicon import Lexicon, article
from reward.text.noun_phrases import Phrase, read
from reward.text.nouns import phrase_of
from reward.text.types import Facts, Finding, ImageQuestion, Why

#: A description and what was found in it.
Described = tuple[str, Sequence[Finding]]


def ask(
    facts: Facts | None,
    described: Iterable[Described],
    lexicon: Lexicon,
    cooccurrence: Cooccurrence,
    seed: int,
    per_image: int,
    short: bool = False,
    complete: bool = True,
) -> tuple[ImageQuestion, ...]:
    """Up to ``per_image`` different questions about an image, as many with yes as with no of each kind (existence,
    attribute, count), or one more of either: otherwise the wording of a question would tell its answer.

    No, in this order: about objects that a description made up; about attributes and numbers that it got wrong; about
    absent objects that go along with those that are there. Each brings one of its kind with yes: about what is right
    where a description was wrong; about objects that one named; about all others. One without such a partner is left
    out.

    With ``short``, those about attributes and numbers ask for them ("What colour is the cup?"), and have no part in the
    balance. ``seed`` decides which of the two has one more, and the order.

    Nothing is asked of an image of which it is not known what is not there (``complete`` as for ``detect.by_facts``).
    """
    truth = Known.of(facts, lexicon, complete)
    if not truth.closed:
        return ()
    told = [(text, findings, read(text, lexicon)) for text, findings in described]
    wrong = _distinct(_wrong(told, truth, lexicon, cooccurrence))
    right = _distinct(_right(told, truth, lexicon))
    brief: list[ImageQuestion] = []
    if short:
        wrong, right = (
            [question for question in questions if question.question_type == "existence"]
            for questions in (wrong, right)
        )
        brief = _distinct(_short(told, truth, lexicon))[: per_image // 2]
    sides = (wrong, right) if _number(f"{seed}:odd") % 2 else (right, wrong)
    chosen = [*_balanced(wrong, right, sides, per_image - len(brief)), *brief]
    return tuple(sorted(chosen, key=lambda entry: _number(f"{seed}:{entry.text}")))


def _balanced(
    wrong: Sequence[ImageQuestion],
    right: Sequence[ImageQuestion],
    sides: Sequence[Sequence[ImageQuestion]],
    most: int,
) -> list[ImageQuestion]:
    """At most ``most``: two by two, the second answered otherwise and of the same kind; where there is room for one
    more, the first of existence, as most are, of the first of ``sides`` that has one left."""
    chosen: list[ImageQuestion] = []
    for question in wrong:
        partners = [other for other in right if other.question_type == question.question_type and other not in chosen]
        if partners and len(chosen) + 2 <= most:
            chosen += [question, partners[0]]
    if len(chosen) < most:
        spare = [q for side in sides for q in side if q.question_type == "existence" and q not in chosen]
        chosen += spare[:1]
    return chosen


def existence(name: str, lexicon: Lexicon) -> str | None:
    """
    >>> from pipeline.scenes.scene_words import scenes
    >>> existence("umbrella", scenes())
    'Is there an umbrella in the image?'
    """
    noun = lexicon.noun(name, False) or lexicon.noun(name, True)
    if noun is None:
        return None
    if lexicon.plural(noun) is not False:
        return f"Are there {noun} in the image?"
    return f"Is there {article(noun)} {noun} in the image?"


def attribute(name: str, word: str, lexicon: Lexicon) -> str | None:
    """Whether there is one that is so; how many is not asked.

    >>> from pipeline.scenes.scene_words import scenes
    >>> attribute("cup", "orange", scenes())
    'Is there an orange cup in the image?'
    """
    phrase = phrase_of(name, 1, (word,), lexicon)
    return phrase and f"Is there {phrase} in the image?"


def count_of(name: str, count: int, lexicon: Lexicon) -> str | None:
    """
    >>> from pipeline.scenes.scene_words import scenes
    >>> count_of("mouse", 2, scenes()), count_of("mouse", 1, scenes())
    ('Are there exactly two mice in the image?', 'Is there exactly one mouse in the image?')
    """
    noun = lexicon.form(name, count > 1)
    verb = "Are" if count > 1 else "Is"
    return noun and f"{verb} there exactly {lexicon.number(count)} {noun} in the image?"


#: A description with its findings and phrases.
Told = tuple[str, Sequence[Finding], Sequence[Phrase]]


def _wrong(told: Sequence[Told], truth: Known, lexicon: Lexicon, cooccurrence: Cooccurrence) -> Iterator[ImageQuestion]:
    """Whose answer is no."""
    for phrase, _ in _faulty(told, "object"):
        if phrase.name not in truth.things:
            yield from _yes_no(existence(phrase.name, lexicon), "existence", False, phrase.name, "hallucinated")
    for phrase, _, words in _values(told, truth, lexicon):
        yield from _yes_no(attribute(phrase.name, words[0], lexicon), "attribute", False, phrase.name, "hallucinated")
    for phrase, thing in _numbers(told, truth):
        text = count_of(phrase.name, phrase.count or 0, lexicon)
        yield from _yes_no(text, "count", False, thing.name, "hallucinated")
    absent = sorted(lexicon.vocabulary.objects - set(truth.things))
    for name in sorted(absent, key=lambda name: -cooccurrence.likely(name, sorted(truth.things))):
        yield from _yes_no(existence(name, lexicon), "existence", False, name, "cooccurring")


def _right(told: Sequence[Told], truth: Known, lexicon: Lexicon) -> Iterator[ImageQuestion]:
    """Whose answer is yes."""
    for phrase, _, words in _values(told, truth, lexicon):
        yield from _yes_no(attribute(phrase.name, words[1], lexicon), "attribute", True, phrase.name, "true")
    for _, thing in _numbers(told, truth):
        yield from _yes_no(count_of(thing.name, thing.count or 0, lexicon), "count", True, thing.name, "true")
    named = [phrase.name for _, _, phrases in told for phrase in phrases if phrase.name in truth.things]
    for name in dict.fromkeys([*named, *truth.things]):
        yield from _yes_no(existence(name, lexicon), "existence", True, name, "true")


def _short(told: Sequence[Told], truth: Known, lexicon: Lexicon) -> Iterator[ImageQuestion]:
    for phrase, kind, words in _values(told, truth, lexicon):
        # Of what has two colours, either is a right answer.
        if kind == "colour" and len(truth.things[phrase.name].values(kind)) == 1:
            several = (truth.things[phrase.name].count or 1) > 1
            noun = lexicon.noun(phrase.name, several)
            if noun is not None:
                text = f"What colour {'are' if several else 'is'} the {noun}?"
                yield ImageQuestion(text, "attribute", words[1], words[0], phrase.name, "hallucinated")
    for phrase, thing in _numbers(told, truth):
        noun = lexicon.noun(thing.name, True)
        if noun is not None:
            right, wrong = lexicon.number(thing.count or 0), lexicon.number(phrase.count or 0)
            yield ImageQuestion(f"How many {noun} are in the image?", "count", right, wrong, thing.name, "hallucinated")


def _values(told: Sequence[Told], truth: Known, lexicon: Lexicon) -> Iterator[tuple[Phrase, str, tuple[str, str]]]:
    """Attributes that a description got wrong: the phrase, the kind, and the wrong and the right word. Those of which
    the facts do not know what is right are left out."""
    for phrase, finding in _faulty(told, "attribute"):
        thing = truth.things.get(phrase.name)
        for said in phrase.attributes:
            right = sorted(thing.values(said.kind)) if thing and thing.tells(said.kind) else []
            if right and not lexicon.alike(said.value, right) and finding.start < said.end and said.start < finding.end:
                words = [
                    next(w for w, meaning in lexicon.attributes.items() if meaning == (said.kind, v)) for v in right
                ]
                wrong = next(w for w, meaning in lexicon.attributes.items() if meaning == (said.kind, said.value))
                yield phrase, said.kind, (wrong, words[0])


def _numbers(told: Sequence[Told], truth: Known) -> Iterator[tuple[Phrase, Thing]]:
    """Numbers that a description got wrong, where the right one is known."""
    for phrase, _ in _faulty(told, "count"):
        thing = truth.things.get(phrase.name)
        if thing is not None and thing.count is not None and phrase.count not in (None, thing.count):
            yield phrase, thing


def _faulty(told: Sequence[Told], kind: str) -> Iterator[tuple[Phrase, Finding]]:
    """The phrases in which there is a hallucination of a kind, or of no kind."""
    for _, findings, phrases in told:
        for finding in findings:
            for phrase in phrases if finding.verdict == "hallucination" and finding.kind in (kind, None) else ():
                end = max([phrase.end, *(word.end for word in phrase.attributes)])
                if finding.start < end and phrase.start < finding.end:
                    yield phrase, finding


def _yes_no(text: str | None, question_type: str, yes: bool, about: str, why: Why) -> Iterator[ImageQuestion]:
    if text is not None:
        yield ImageQuestion(text, question_type, "Yes" if yes else "No", "No" if yes else "Yes", about, why)


def _distinct(questions: Iterable[ImageQuestion]) -> list[ImageQuestion]:
    distinct: dict[str, ImageQuestion] = {}
    for question in questions:
        distinct.setdefault(question.text, question)
    return list(distinct.values())


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
