"""The suites over the built-in world: held-out scenes, whose facts answer everything exactly, so no judge is needed.

POPE and CHAIR ask and count as over COCO, with the world's own words. AMBER's descriptions are held against what is
there and what usually goes along with it; its questions are asked with both answers, where a scene allows. SHR's
verdicts come from all facts: objects, colours, numbers and places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.scenes import grammar
from pipeline.scenes.lexicon import scenes
from pipeline.scenes.prompts import facts
from pipeline.scenes.vocabulary import OBJECTS, THEMES, VOCABULARY
from pipeline.scenes.world import Scene, scene
from reward.scorers.objects import ObjectVerdict, judge
from reward.text.types import VERSION
from training.config.evaluation import EvaluateConfig
from training.errors import ConfigError
from training.evaluation import prompts
from training.evaluation.asked import Asked
from training.evaluation.suites import amber, chair, pope, shr
from training.evaluation.suites.amber import Lists
from training.evaluation.suites.benchmarks import parser_for
from training.evaluation.suites.loaded import Loaded, Picture
from training.evaluation.words.similarity import Exact

#: AMBER's types of questions -> what the world's grammar calls them. There are no states and no actions.
KINDS: Mapping[str, str] = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "attribute",
    "discriminative-attribute-number": "count",
    "relation": "relation",
}
#: How often a question of a kind is drawn until it has the wanted answer; each draw has it with probability 1/2.
_DRAWS = 64
#: Every noun of the world stands for itself.
LISTS = Lists(dict.fromkeys(OBJECTS, ()), frozenset())


@dataclass(frozen=True)
class World:
    """The scenes that are asked about: ``scenes`` and ``pictures`` by file name, ``rows`` are prompts of a table."""

    config: EvaluateConfig
    scenes: Mapping[str, Scene]
    pictures: Mapping[str, Picture]
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, config: EvaluateConfig) -> World:
        rows = list(prompts.build(config.model_dump(mode="json")))
        pictures = {row["images"][0]["path"]: row["images"][0] for row in rows}
        # The file name ends in the scene's number in its stream.
        found = {name: scene(config.seed, int(name.removesuffix(".png").rpartition("-")[2])) for name in pictures}
        return cls(config, found, pictures, rows)


class Words:
    """The world's vocabulary in the places of CHAIR's list of synonyms and of AMBER's tagger."""

    version = f"{VOCABULARY.name}@{VOCABULARY.version}"

    def judge(self, text: str, truth: frozenset[str]) -> ObjectVerdict:
        return judge(text, truth, VOCABULARY)

    def __call__(self, text: str) -> list[str]:
        return [mention.name for mention in VOCABULARY.mentions(text)]


def load(names: Iterable[str], config: EvaluateConfig, parser: str | None = None) -> list[Loaded]:
    """
    Raises:
        ConfigError: a suite cannot be answered by facts, or does not know the parser.
    """
    wanted = list(names)
    lost = [name for name in wanted if name not in SUITES]
    if lost:
        raise ConfigError(
            f"suite {lost[0]} has no questions about scenes; use some of {', '.join(SUITES)}, or give --data DIR with "
            "the files of the benchmark"
        )
    world = World.of(config)
    return [SUITES[name](world, parser) for name in wanted]


def yes_or_no(one: Scene, image: str, seed: int) -> list[Asked]:
    """AMBER's questions about a scene: of each kind one whose answer is yes and one whose answer is no, as far as the
    grammar has them (without two kinds of objects clearly apart there is no relation).

    >>> [(a.truth["type"], a.truth["truth"]) for a in yes_or_no(scene(0, 0), "a.png", 0)][:2]
    [('discriminative-hallucination', 'yes'), ('discriminative-hallucination', 'no')]
    """
    asked: dict[str, Asked] = {}
    for kind, own in KINDS.items():
        for answer in ("yes", "no"):
            rng = random.Random(f"amber:{seed}:{image}:{kind}:{answer}")
            drawn = (grammar.question(one, own, rng) for _ in range(_DRAWS))
            text = next((each.text for each in drawn if (each.kind, each.answer) == (own, answer)), None)
            if text is not None:
                asked.setdefault(text, Asked(f"{image}:{text}", image, text, {"type": kind, "truth": answer}))
    return list(asked.values())


def described(one: Scene) -> dict[str, list[str]]:
    """The truth of a description in AMBER's terms: what is there, and what usually goes along with it and is not.

    >>> from pipeline.scenes.world import Thing
    >>> described(Scene("chess", (Thing("king", "red", ((0, 0, 0, 26),)),), (0, 0, 0)))
    {'truth': ['king'], 'hallu': ['queen', 'castle', 'bishop', 'horse']}
    """
    there = [thing.name for thing in one.objects]
    return {"truth": there, "hallu": [name for name in THEMES[one.theme] if name not in there]}


def _pope(world: World, parser: str | None) -> Loaded:
    asked = []
    for row in world.rows:
        if row["source"].startswith(prompts.POPE):
            image, text = row["images"][0]["path"], row["prompt"][0]["content"]
            splits = row["source"].removeprefix(prompts.POPE).split(",")
            asked.append(Asked(f"{image}:{text}", image, text, {"answer": row["facts"]["answer"], "splits": splits}))
    chosen = parser_for("pope", parser, "official")
    return _loaded("pope", pope.VERSION, world, asked, partial(pope.score, asked, parser=chosen), parser=chosen)


def _chair(world: World, _: str | None) -> Loaded:
    asked = _descriptions(world, lambda one: {"objects": sorted(one.names)})
    score = partial(chair.score, asked, known=Words())
    return _loaded("chair", chair.VERSION, world, asked, score, {"vocabulary": Words.version}, world.config.describe)


def _amber_generative(world: World, _: str | None) -> Loaded:
    asked = _descriptions(world, described)
    similarity = Exact()
    score = partial(amber.score_descriptions, asked, lists=LISTS, nouns=Words(), similarity=similarity)
    versions = {"tagger": Words.version, "similarity": similarity.version}
    return _loaded("amber_generative", amber.VERSION, world, asked, score, versions, world.config.describe)


def _amber_discriminative(world: World, parser: str | None) -> Loaded:
    asked = [question for image, one in world.scenes.items() for question in yes_or_no(one, image, world.config.seed)]
    chosen = parser_for("amber_discriminative", parser, "exact")
    score = partial(amber.score_answers, asked, parser=chosen)
    return _loaded("amber_discriminative", amber.VERSION, world, asked, score, parser=chosen)


def _shr(world: World, _: str | None) -> Loaded:
    asked = _descriptions(world, lambda one: {"facts": facts(one)})
    words = scenes()
    score = partial(shr.score, asked, lexicon=words)
    return _loaded(
        "shr", shr.VERSION, world, asked, score, {"facts": f"{words.version}, rules {VERSION}"}, world.config.describe
    )


#: What can be asked about scenes, each by what makes it of a world and the wanted parser.
SUITES: Mapping[str, Callable[[World, str | None], Loaded]] = {
    "pope": _pope,
    "chair": _chair,
    "amber_generative": _amber_generative,
    "amber_discriminative": _amber_discriminative,
    "shr": _shr,
}


def _descriptions(world: World, truth: Callable[[Scene], Mapping[str, Any]]) -> list[Asked]:
    return [Asked(image, image, world.config.describe, truth(one)) for image, one in world.scenes.items()]


def _loaded(
    name: str,
    version: str,
    world: World,
    asked: Sequence[Asked],
    score: Any,
    versions: Mapping[str, str] | None = None,
    prompt: str = "as in the data",
    parser: str = "none",
) -> Loaded:
    return Loaded(
        name=name,
        version=version,
        asked=tuple(asked),
        pictures=world.pictures,
        score=score,
        data=f"scenes, stream {world.config.seed}",
        files=Words.version,
        prompt=prompt,
        parser=parser,
        versions=versions or {},
    )
