"""The built-in world: held-out scenes, whose facts answer everything exactly, so no judge is needed.

POPE and CHAIR ask and count as over COCO, with the world's own words. AMBER's descriptions are held against what is
there and what usually goes along with it; its questions are asked with both answers, where a scene allows. SHR's
verdicts come from all facts: objects, colours, numbers and places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.scenes import grammar
from pipeline.scenes.prompts import facts
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.vocabulary import OBJECTS, THEMES, VOCABULARY, article
from pipeline.scenes.world import Scene, scene
from reward.scorers.objects import ObjectVerdict, judge, truth_of
from reward.text.object_vocabulary import Vocabulary
from reward.text.types import VERSION
from training.config.evaluation import EvaluateConfig
from training.evaluation import benchmarks
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.benchmarks import amber, chair, pope, shr
from training.evaluation.question import Picture, Question
from training.evaluation.suite import Suite
from training.evaluation.words.similarity import Exact

#: ``source`` of a prompt that asks for a description, and how that of a POPE question begins.
DESCRIBE = "describe"
POPE = "pope:"
#: AMBER's types of questions -> what the world's grammar calls them. There are no states and no actions.
KINDS: Mapping[str, str] = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "attribute",
    "discriminative-attribute-number": "count",
    "relation": "relation",
}
#: What the command line can choose of all this.
OPTIONS = frozenset({"parser", "prompt", "scenes"})
#: How often a question of a kind is drawn until it has the wanted answer; each draw has it with probability 1/2.
_DRAWS = 64
#: Every noun of the world stands for itself.
LISTS = amber.Lists(dict.fromkeys(OBJECTS, ()), frozenset())


def build(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Per held-out scene one describe prompt and its distinct POPE questions, as rows for a prompts table.

    Yields dicts with ``images`` (list of ``{bytes, path}``), ``prompt`` (list of ``{role, content}``), ``facts``, and
    ``source``: ``"describe"``, or ``"pope:random,popular"`` naming the splits a question belongs to. No two scenes have
    the same picture, so no two rows are alike.

    Raises:
        pydantic.ValidationError: ``config`` is no ``EvaluateConfig``.
    """
    from pipeline.scenes import raster

    options = EvaluateConfig.model_validate(dict(config))
    pictures: dict[bytes, int] = {}
    index = 0
    while len(pictures) < options.scenes:
        pictures.setdefault(raster.png(scene(options.seed, index)), index)
        index += 1
    facts_of = {index: facts(scene(options.seed, index)) for index in pictures.values()}
    names = [[thing["name"] for thing in facts_of[index]["objects"]] for index in pictures.values()]
    questions: dict[int, list[pope.ObjectQuestion]] = {}
    for built in pope.build(names, options.per_image, options.seed, article=article):
        questions.setdefault(built.image, []).append(built)
    for position, (picture, index) in enumerate(pictures.items()):
        images = [{"bytes": picture, "path": f"scene-{options.seed}-{index}.png"}]
        yield _row(images, options.describe, facts_of[index], DESCRIBE)
        for built in questions.get(position, ()):
            answered = {**facts_of[index], "question_type": "existence", "answer": built.answer}
            yield _row(images, built.text, answered, POPE + ",".join(built.splits))


def question(row: Mapping[str, Any], id: str, image: str, vocabulary: Vocabulary = VOCABULARY) -> Question:
    """A row of ``build`` as a question of POPE, or as one that CHAIR and SHR score.

    Raises:
        ValueError: it is no row of ``build``.
    """
    text, source = row["prompt"][0]["content"], row["source"]
    if source == DESCRIBE:
        there = sorted(truth_of(row, vocabulary) or ())
        return Question(id, image, text, {"objects": there, "facts": row["facts"] or {}})
    if not source.startswith(POPE):
        raise ValueError(f"id {id!r}: source {source!r} is neither {DESCRIBE!r} nor {POPE!r}...")
    return Question(id, image, text, {"answer": row["facts"]["answer"], "splits": source.removeprefix(POPE).split(",")})


@dataclass(frozen=True)
class VocabularyReader:
    """A vocabulary in the places of CHAIR's list of synonyms and of AMBER's tagger."""

    vocabulary: Vocabulary = VOCABULARY

    @property
    def version(self) -> str:
        return f"{self.vocabulary.name}@{self.vocabulary.version}"

    def judge(self, text: str, truth: frozenset[str]) -> ObjectVerdict:
        return judge(text, truth, self.vocabulary)

    def __call__(self, text: str) -> list[str]:
        return [mention.name for mention in self.vocabulary.mentions(text)]


READER = VocabularyReader()


@dataclass(frozen=True)
class World:
    """The scenes that are asked about: ``scenes`` and ``pictures`` by file name; ``descriptions`` and ``yes_no`` are
    the questions of ``build``."""

    config: EvaluateConfig
    scenes: Mapping[str, Scene]
    pictures: Mapping[str, Picture]
    descriptions: Sequence[Question]
    yes_no: Sequence[Question]

    @classmethod
    def of(cls, config: EvaluateConfig) -> World:
        pictures: dict[str, Picture] = {}
        descriptions, yes_no = [], []
        for row in build(config.model_dump(mode="json")):
            (picture,) = row["images"]
            name = picture["path"]
            pictures[name] = picture
            if row["source"] == DESCRIBE:
                descriptions.append(question(row, name, name))
            else:
                yes_no.append(question(row, f"{name}:{row['prompt'][0]['content']}", name))
        # The file name ends in the scene's number in its stream.
        scene_of = {name: scene(config.seed, int(name.removesuffix(".png").rpartition("-")[2])) for name in pictures}
        return cls(config, scene_of, pictures, descriptions, yes_no)


def config(limit: int | None = None, seed: int = 0, flags: Mapping[str, Any] | None = None) -> EvaluateConfig:
    """The evaluation that the command line asks for; ``flags`` has the ``OPTIONS`` that were given."""
    given, default = flags or {}, EvaluateConfig.model_validate({})
    sizes = {"scenes": limit or given.get("scenes", default.scenes), "seed": default.seed + seed}
    return default.model_copy(update={**sizes, "describe": given.get("prompt") or default.describe})


def load(
    names: Iterable[str],
    config: EvaluateConfig,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shared: Mapping[str, Any] | None = None,
) -> list[Suite]:
    """``options`` and ``shared``: see ``benchmarks.make``; but for the parser, none has a say here.

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
    odd = [f"{name}.{key}" for name, given in (options or {}).items() for key in given if key != "parser"]
    if odd:
        raise ConfigError(f"--option {odd[0]} is for the files of the benchmark; scenes have their own words")
    made = benchmarks.make(wanted, options, {key: of for key, of in (shared or {}).items() if key == "parser"})
    world = World.of(config)
    return [_suite(benchmark, world) for benchmark in made]


def _suite(benchmark: Benchmark, world: World) -> Suite:
    opened = SUITES[benchmark.name](world, benchmark)
    parser = getattr(benchmark, "parser", None)
    return Suite(
        name=benchmark.name,
        version=benchmark.version,
        questions=tuple(opened.questions),
        pictures=world.pictures,
        score=partial(opened.score, opened.questions),
        data=f"scenes, stream {world.config.seed}",
        files=READER.version,
        prompt="as in the data" if parser is not None else world.config.describe,
        parser=parser or "none",
        versions=opened.versions,
    )


def yes_or_no(view: Scene, image: str, seed: int) -> list[Question]:
    """AMBER's questions about a scene: of each kind one whose answer is yes and one whose answer is no, as far as the
    grammar has them (without two kinds of objects clearly apart there is no relation).

    >>> [(a.truth["type"], a.truth["truth"]) for a in yes_or_no(scene(0, 0), "a.png", 0)][:2]
    [('discriminative-hallucination', 'yes'), ('discriminative-hallucination', 'no')]
    """
    questions: dict[str, Question] = {}
    for kind, term in KINDS.items():
        for answer in ("yes", "no"):
            rng = random.Random(f"amber:{seed}:{image}:{kind}:{answer}")
            drawn = (grammar.question(view, term, rng) for _ in range(_DRAWS))
            text = next((each.text for each in drawn if (each.kind, each.answer) == (term, answer)), None)
            if text is not None:
                questions.setdefault(text, Question(f"{image}:{text}", image, text, {"type": kind, "truth": answer}))
    return list(questions.values())


def description_truth(view: Scene) -> dict[str, list[str]]:
    """The truth of a description in AMBER's terms: what is there, and what usually goes along with it and is not.

    >>> from pipeline.scenes.world import Thing
    >>> description_truth(Scene("chess", (Thing("king", "red", ((0, 0, 0, 26),)),), (0, 0, 0)))
    {'truth': ['king'], 'hallu': ['queen', 'castle', 'bishop', 'horse']}
    """
    there = [thing.name for thing in view.objects]
    return {"truth": there, "hallu": [name for name in THEMES[view.theme] if name not in there]}


def _pope(world: World, benchmark: Benchmark) -> Opened:
    return Opened(world.yes_no, benchmark.score, {})


def _chair(world: World, _: Benchmark) -> Opened:
    return Opened(world.descriptions, partial(chair.score, reader=READER), {"vocabulary": READER.version})


def _amber_generative(world: World, _: Benchmark) -> Opened:
    questions = [
        Question(image, image, world.config.describe, description_truth(view)) for image, view in world.scenes.items()
    ]
    score = partial(amber.score_descriptions, lists=LISTS, nouns=READER, similarity=Exact())
    return Opened(questions, score, {"tagger": READER.version, "similarity": Exact.version})


def _amber_discriminative(world: World, benchmark: Benchmark) -> Opened:
    questions = [entry for image, view in world.scenes.items() for entry in yes_or_no(view, image, world.config.seed)]
    return Opened(questions, benchmark.score, {})


def _shr(world: World, _: Benchmark) -> Opened:
    words = scenes()
    return Opened(world.descriptions, partial(shr.score, lexicon=words), {"facts": f"{words.version}, rules {VERSION}"})


#: What can be asked about scenes.
SUITES: Mapping[str, Callable[[World, Benchmark], Opened]] = {
    "pope": _pope,
    "chair": _chair,
    "amber_generative": _amber_generative,
    "amber_discriminative": _amber_discriminative,
    "shr": _shr,
}


def _row(images: list[dict[str, Any]], text: str, facts: dict[str, Any], source: str) -> dict[str, Any]:
    return {"images": images, "prompt": [{"role": "user", "content": text}], "facts": facts, "source": source}
