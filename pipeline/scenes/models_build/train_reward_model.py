"""Train the built-in reward model: ``python -m pipeline.scenes.models_build.train_reward_model``.

Pairs are made from scenes and their exact facts, no model is asked: a description against the same with a fault more,
a right answer against the wrong one, and a true text about its scene against the same text about an edited one.

The last kind comes first and alone. Whether an answer is right is an exclusive or of what is there and what is said,
which shows no slope to start from: after 490 steps on answers and descriptions alone the model still guessed answers
(0.55). That "Yes" is worth more about the true scene than about the edited one takes 40 steps, and answers follow.

The backbone is the strong VLM. On the one that has been taught to say yes, 588 steps gave right and wrong answers
rewards 0.005 apart, too close for any margin.

``--blind`` trains the same without images, for comparison: the text-only reward model of the papers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command
from pipeline.base.model_names import SCENES as MODELS
from pipeline.scenes import grammar, raster
from pipeline.scenes.grammar import Item
from pipeline.scenes.models_build.curriculum import TRAIN_SEED
from pipeline.scenes.vocabulary import COLOURS, OBJECTS, THEMES, VOCABULARY
from pipeline.scenes.world import CELL, GRID, Scene, Thing, scene
from reward.models.preference_pairs import Pair

BACKBONE = "vlm-strong"
#: Shares of pairs about an edited scene, and of answers to questions; the rest are descriptions.
EDITED, QUESTIONS = 0.2, 0.35
#: Share of the training that comes first, with "Yes" about edited scenes alone.
WARM_UP = 0.03
_ASKED = ("existence", "existence", "existence", "attribute", "count", "relation")


def _more(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    """Name an object that is not there, mostly at the end, where the models do."""
    extra = _absent_item(items, shown, rng)
    if extra is None:
        return None
    place = len(items) if rng.random() < 0.8 else rng.randrange(len(items) + 1)
    return [*items[:place], extra, *items[place:]]


def _other(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    """Name an object that is not there in place of one that is."""
    true = [i for i, entry in enumerate(items) if entry.name in shown.names]
    extra = _absent_item(items, shown, rng)
    if extra is None or not true:
        return None
    i = rng.choice(true)
    return [*items[:i], replace(items[i], name=extra.name), *items[i + 1 :]]


def _less(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    """Leave out an object that is there, and is named once: of two mentions, one less would be no fault."""
    names = [entry.name for entry in items]
    true = [i for i, name in enumerate(names) if name in shown.names and names.count(name) == 1]
    if len(items) < 2 or not true:
        return None
    i = rng.choice(true)
    return [*items[:i], *items[i + 1 :]]


def _twice(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    """Name an object that is there a second time."""
    true = [entry for entry in items if entry.name in shown.names]
    return [*items, rng.choice(true)] if true else None


def _colour(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    right = {thing.name: thing.colour for thing in shown.objects}
    true = [i for i, entry in enumerate(items) if right.get(entry.name) == entry.colour]
    if not true:
        return None
    i = rng.choice(true)
    wrong = rng.choice([colour for colour in COLOURS if colour != items[i].colour])
    return [*items[:i], replace(items[i], colour=wrong), *items[i + 1 :]]


def _count(items: list[Item], shown: Scene, rng: random.Random) -> list[Item] | None:
    right = {thing.name: thing.count for thing in shown.objects}
    true = [i for i, entry in enumerate(items) if right.get(entry.name) == entry.count]
    if not true:
        return None
    i = rng.choice(true)
    wrong = rng.choice([count for count in (1, 2, 3) if count != items[i].count])
    return [*items[:i], replace(items[i], count=wrong, cell=None), *items[i + 1 :]]


Fault = Callable[[list[Item], Scene, random.Random], list[Item] | None]
#: The kind of error, how it is made, and how often.
FAULTS: tuple[tuple[str, Fault, float], ...] = (
    ("object", _more, 0.3),
    ("object", _other, 0.2),
    ("missing", _less, 0.15),
    ("repeated", _twice, 0.1),
    ("attribute", _colour, 0.125),
    ("count", _count, 0.125),
)


def pair(seed: int, index: int) -> Pair:
    """The ``index``-th pair of two texts in stream ``seed``; it depends on nothing else."""
    rng = random.Random(f"reward:{seed}:{index}")
    shown = scene(seed, index)
    return _question(shown, rng) if rng.random() < QUESTIONS / (1 - EDITED) else _description(shown, rng)


def edited_pair(seed: int, index: int, questions: float) -> Pair:
    """The ``index``-th pair of two pictures: a true text about its scene, and about one in which it is false.

    ``questions`` is the share of questions, all answered "Yes".
    """
    rng = random.Random(f"edited:{seed}:{index}")
    shown = scene(seed, index)
    if rng.random() >= questions:
        thing = rng.choice(shown.objects)
        kind = rng.choice(("existence", "existence", "attribute", "count"))
        text = grammar.describe(grammar.reading_order(shown), rng)
        prompt = rng.choice(grammar.DESCRIBE)
        return _about(shown, edit(shown, kind, [thing.name], rng), prompt, text, kind)
    while True:
        question = grammar.question(shown, rng.choice(_ASKED), rng)
        if question.answer == "yes":
            names = [mention.name for mention in VOCABULARY.mentions(question.text)]
            return _about(shown, edit(shown, question.kind, names, rng), question.text, "Yes", question.kind)


def edit(shown: Scene, kind: str, names: Sequence[str], rng: random.Random) -> Scene:
    """The scene with what ``kind`` asks of the objects ``names`` changed: another object or colour in the first one's
    place, one instance fewer or more of it, or for a relation the two exchanged. A full scene with one instance of it
    gets another object instead of a second one."""
    thing = next(thing for thing in shown.objects if thing.name == names[0])
    if kind == "count" and _other_count(shown, thing, rng) == thing.places:
        kind = "existence"
    if kind == "relation":
        other = next(thing for thing in shown.objects if thing.name == names[1])
        new = {thing.name: replace(thing, places=other.places), other.name: replace(other, places=thing.places)}
    elif kind == "existence":
        absent = _absent_item([], shown, rng)
        assert absent is not None  # there are 30 objects, and at most five in a scene
        new = {thing.name: replace(thing, name=absent.name)}
    elif kind == "attribute":
        new = {thing.name: replace(thing, colour=rng.choice([c for c in COLOURS if c != thing.colour]))}
    else:
        new = {thing.name: replace(thing, places=_other_count(shown, thing, rng))}
    return replace(shown, objects=tuple(new.get(thing.name, thing) for thing in shown.objects))


def _other_count(shown: Scene, thing: Thing, rng: random.Random) -> tuple[tuple[int, int, int, int], ...]:
    """The places with one fewer or one more, at most three; the same ones where neither can be."""
    taken = {cell for other in shown.objects for cell in other.cells}
    free = [cell for cell in range(GRID * GRID) if cell not in taken]
    if thing.count > 1 and (not free or rng.random() < 0.5):
        return thing.places[1:]
    if not free or thing.count == 3:
        return thing.places[1:] or thing.places
    (cell, x, y, size), new = thing.places[0], rng.choice(free)
    right, down = CELL * (new % GRID - cell % GRID), CELL * (new // GRID - cell // GRID)
    return (*thing.places, (new, x + right, y + down, size))


def _about(shown: Scene, other: Scene, prompt: str, text: str, kind: str) -> Pair:
    pictures = (raster.png(shown),), (raster.png(other),)
    return Pair(pictures[0], (("user", prompt),), text, text, kind=kind, rejected_images=pictures[1])


def curriculum(seed: int, count: int, blind: bool) -> list[Pair]:
    """The pairs to learn from, in order. Without images, an edited scene cannot be told from the true one."""
    if blind:
        return [pair(seed, index) for index in range(count)]
    warm = round(count * WARM_UP)
    rng = random.Random(f"curriculum:{seed}")
    first = [edited_pair(seed, index, 1.0) for index in range(warm)]
    return first + [
        edited_pair(seed, index, 0.5) if rng.random() < EDITED else pair(seed, index) for index in range(warm, count)
    ]


def _question(shown: Scene, rng: random.Random) -> Pair:
    question = grammar.question(shown, rng.choice(_ASKED), rng)
    right, wrong = ("Yes", "No") if question.answer == "yes" else ("No", "Yes")
    if rng.random() < 0.1:
        right, wrong = f"{right}.", f"{wrong}."
    return Pair((raster.png(shown),), (("user", question.text),), right, wrong, kind=question.kind)


def _description(shown: Scene, rng: random.Random) -> Pair:
    good = grammar.reading_order(shown)
    if rng.random() < 0.2:
        rng.shuffle(good)
    # What samplers offer is seldom free of faults: often both have one, and the worse one another.
    if rng.random() < 0.4:
        good = _faulty(good, shown, rng)[0]
    bad, kind = _faulty(good, shown, rng)
    if kind == "object" and rng.random() < 0.25:
        # A made-up object is worse than one that is missing, so that saying more is not worth the risk.
        good = _less(good, shown, rng) or good
    # Half of the time in the same words, so that the fault is all there is; half in others, as samples are.
    same = rng.random()
    wordings = (same, same) if rng.random() < 0.5 else (same, rng.random())
    chosen, rejected = (
        grammar.describe(items, random.Random(words)) for items, words in zip((good, bad), wordings, strict=True)
    )
    return Pair((raster.png(shown),), (("user", rng.choice(grammar.DESCRIBE)),), chosen, rejected, kind=kind)


def _faulty(items: list[Item], shown: Scene, rng: random.Random) -> tuple[list[Item], str]:
    """The items with one fault more, and its kind."""
    while True:
        kind, fault, _ = rng.choices(FAULTS, [weight for _, _, weight in FAULTS])[0]
        made = fault(list(items), shown, rng)
        if made is not None:
            return made, kind


def _absent_item(items: Sequence[Item], shown: Scene, rng: random.Random) -> Item | None:
    """An object that is neither there nor named yet; mostly of the scene's theme."""
    named = shown.names | {entry.name for entry in items}
    pool = [name for name in (THEMES[shown.theme] if rng.random() < 0.8 else OBJECTS) if name not in named]
    pool = pool or [name for name in OBJECTS if name not in named]
    return Item(rng.choice(pool), rng.choice(tuple(COLOURS)), rng.choices((1, 2, 3), (8, 2, 1))[0]) if pool else None


def main(
    folder: Annotated[Path | None, typer.Option(help="Where the model goes; by default beside the others.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="The same without images.")] = False,
    pairs: Annotated[int, typer.Option(help="How many pairs to learn from.")] = 96_000,
    batch_size: int = 48,
    lr: float = 2e-3,
    seed: int = 0,
) -> None:
    """Train the built-in reward model on the strongest of the built-in VLMs."""
    from reward.train import Options, train

    options = Options(
        lr=lr,
        batch_size=batch_size,
        micro_batch_size=batch_size * 2,  # one forward pass a step
        center=0.01,
        in_order=True,
        held_out=0.01,
        blind=blind,
        half=True,
        seed=seed,
    )
    made = curriculum(TRAIN_SEED + 2, pairs, blind)
    out = folder or MODELS / ("reward-blind" if blind else "reward")
    print(json.dumps(train(made, str(MODELS / BACKBONE), out, options, base_name=f"scenes-{BACKBONE}")))


app = command(main)

if __name__ == "__main__":
    app()
