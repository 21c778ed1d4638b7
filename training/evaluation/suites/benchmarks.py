"""The suites over the files of their benchmarks, a folder each, as options say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from reward.text.yes_no import PARSERS
from training.errors import ConfigError, DataError
from training.evaluation import files, halbench
from training.evaluation.asked import Asked
from training.evaluation.suites import SUITES, amber, chair, mmhal, object_halbench, pope, shr
from training.evaluation.suites.loaded import Loaded, Picture, limited
from training.evaluation.words import coco_words
from training.evaluation.words.similarity import SIMILARITIES

T = TypeVar("T")

#: The folder of each suite's files, below the one that holds all.
FOLDERS: Mapping[str, str] = {
    **{name: name for name in SUITES},
    "amber_generative": "amber",
    "amber_discriminative": "amber",
}


@dataclass(frozen=True)
class Options:
    """
    Args:
        data: the folder that holds one for each suite (``FOLDERS``).
        images: where the images lie, in this folder or in one of the suite's name in it; None for ``images`` in the
            suite's own folder.
        limit: about how many images a suite asks, drawn by ``seed``; None for all (CHAIR: 500).
        parser: how yes and no are read; None for each suite's own.
        prompt: asks for a description in place of the words of CHAIR and SHR.
        suffix: stands behind every question of POPE and of AMBER's.
        variant, synonyms: of CHAIR's words; ``synonyms`` also of Object HalBench's.
        nouns, similarity, phrases: what finds the nouns of AMBER, what compares them, and what reads Object HalBench's
            lists.
    """

    data: Path
    images: Path | None = None
    limit: int | None = None
    seed: int = 0
    parser: str | None = None
    prompt: str | None = None
    suffix: str = ""
    variant: str = "standalone"
    synonyms: Path | None = None
    nouns: str = "nltk"
    similarity: str = "spacy"
    phrases: str = "spacy"


def load(names: Iterable[str], options: Options) -> list[Loaded]:
    """
    Raises:
        DataError: a folder, a file, an image or a model that reads answers is missing, or a file is malformed.
        ConfigError: an option has a value that a suite does not know.
    """
    if not options.data.is_dir():
        raise DataError(f"there is no folder {options.data}; give --data DIR with a folder for each suite, or scenes")
    loaded = []
    for name in names:
        folder = options.data / FOLDERS[name]
        if not folder.is_dir():
            raise DataError(
                f"suite {name}: there is no folder {folder}; put the benchmark's own files there (docs/evaluation.md "
                "says which)"
            )
        loaded.append(_LOADERS[name](folder, options))
    return loaded


def parser_for(name: str, wanted: str | None, own: str) -> str:
    """
    Raises:
        ConfigError: the suite has no such parser.
    """
    known = ("exact", *PARSERS) if own == "exact" else tuple(PARSERS)
    if wanted is not None and wanted not in known:
        raise ConfigError(f"--parser {wanted}: suite {name} has no such parser; use one of {', '.join(known)}")
    return wanted or own


def _pope(folder: Path, options: Options) -> Loaded:
    asked = limited(pope.questions(folder, options.suffix), options.limit, options.seed)
    parser = parser_for("pope", options.parser, "official")
    return Loaded(
        name="pope",
        version=pope.VERSION,
        asked=tuple(asked),
        pictures=_pictures("pope", asked, options),
        score=partial(pope.score, asked, parser=parser),
        data="POPE, official files",
        files=_digest(folder, "coco_pope_*.json"),
        prompt=_behind(options.suffix),
        parser=parser,
    )


def _chair(folder: Path, options: Options) -> Loaded:
    prompt = options.prompt or "Please describe this image in detail."
    known = chair.load(folder, options.variant, options.synonyms)
    asked = chair.questions(
        folder, options.variant, options.synonyms, options.limit or 500, options.seed, prompt=prompt
    )
    return Loaded(
        name="chair",
        version=chair.VERSION,
        asked=tuple(asked),
        pictures=_pictures("chair", asked, options),
        score=partial(chair.score, asked, known=known),
        data="COCO",
        files=_digest(folder, "instances_*.json", "captions_*.json"),
        prompt=prompt,
        versions={"vocabulary": known.version, "lemmatiser": coco_words.lemmatiser_version(options.variant)},
    )


def _amber_generative(folder: Path, options: Options) -> Loaded:
    asked = limited(amber.describe(folder), options.limit, options.seed)
    nouns = _chosen("--nouns", options.nouns, amber.NOUNS)()
    similarity = _chosen("--similarity", options.similarity, SIMILARITIES)()
    lists = amber.read_lists(folder)
    return Loaded(
        name="amber_generative",
        version=amber.VERSION,
        asked=tuple(asked),
        pictures=_pictures("amber_generative", asked, options),
        score=partial(amber.score_descriptions, asked, lists=lists, nouns=nouns, similarity=similarity),
        data="AMBER, official files",
        files=_digest(folder, "*.json", "safe_words.txt", "query/query_generative.json"),
        versions={"tagger": nouns.version, "similarity": similarity.version},
    )


def _amber_discriminative(folder: Path, options: Options) -> Loaded:
    asked = limited(amber.ask(folder, options.suffix), options.limit, options.seed)
    parser = parser_for("amber_discriminative", options.parser, "exact")
    return Loaded(
        name="amber_discriminative",
        version=amber.VERSION,
        asked=tuple(asked),
        pictures=_pictures("amber_discriminative", asked, options),
        score=partial(amber.score_answers, asked, parser=parser),
        data="AMBER, official files",
        files=_digest(folder, "annotations.json", "query/query_discriminative.json"),
        prompt=_behind(options.suffix),
        parser=parser,
    )


def _shr(folder: Path, options: Options) -> Loaded:
    prompt = options.prompt or "Describe this image in detail."
    asked = limited(shr.questions(folder, prompt), options.limit, options.seed)
    return Loaded(
        name="shr",
        version=shr.VERSION,
        asked=tuple(asked),
        pictures=_pictures("shr", asked, options),
        score=partial(shr.score, asked),
        data="Visual Genome, images of HA-DPO",
        files=_digest(folder, "*.json", "shr_factual_part*.jsonl"),
        prompt=prompt,
        judge_prompt=shr.judge_prompt,
    )


def _object_halbench(folder: Path, options: Options) -> Loaded:
    phrases: halbench.Phrases = _chosen("--phrases", options.phrases, halbench.PHRASES)()
    synonyms = options.synonyms or folder / object_halbench.SYNONYMS
    known = coco_words.words("object_halbench", synonyms)
    asked = limited(object_halbench.questions(folder, known), options.limit, options.seed)
    return Loaded(
        name="object_halbench",
        version=object_halbench.VERSION,
        asked=tuple(asked),
        pictures=_pictures("object_halbench", asked, options),
        score=partial(object_halbench.score, asked, known=known, phrases=phrases),
        data="Object HalBench",
        files=_digest(folder, "questions.jsonl", "instances_*.json", "captions_*.json"),
        versions={
            "vocabulary": known.version,
            "lemmatiser": coco_words.lemmatiser_version("object_halbench"),
            "tagger": phrases.version,
        },
        judge_prompt=object_halbench.judge_prompt,
    )


def _mmhal(folder: Path, options: Options) -> Loaded:
    asked = limited(mmhal.questions(folder), options.limit, options.seed)
    return Loaded(
        name="mmhal",
        version=mmhal.VERSION,
        asked=tuple(asked),
        pictures=_pictures("mmhal", asked, options),
        score=partial(mmhal.score, asked),
        data="MMHal-Bench",
        files=_digest(folder, "response_template.json"),
        judge_prompt=mmhal.judge_prompt,
    )


_LOADERS: Mapping[str, Callable[[Path, Options], Loaded]] = {
    "pope": _pope,
    "chair": _chair,
    "amber_generative": _amber_generative,
    "amber_discriminative": _amber_discriminative,
    "shr": _shr,
    "object_halbench": _object_halbench,
    "mmhal": _mmhal,
}


def _chosen(option: str, name: str, known: Mapping[str, Callable[[], T]]) -> Callable[[], T]:
    if name not in known:
        raise ConfigError(f"{option} {name}: unknown; use one of {', '.join(known)}")
    return known[name]


def _behind(suffix: str) -> str:
    return f"as in the data, and {suffix!r} behind it" if suffix else "as in the data"


def _digest(folder: Path, *patterns: str) -> str:
    return files.digest(path for pattern in patterns for path in folder.glob(pattern))


def _pictures(name: str, asked: Sequence[Asked], options: Options) -> dict[str, Picture]:
    """Where every image lies.

    Raises:
        DataError: some are missing; the message names the first and says how many.
    """
    own = FOLDERS[name]
    roots = [options.data / own / "images"] if options.images is None else [options.images / own, options.images]
    wanted = dict.fromkeys(one.image for one in asked)
    found = {image: path for image in wanted if (path := _find(image, roots)) is not None}
    lost = [image for image in wanted if image not in found]
    if lost:
        raise DataError(
            f"suite {name}: {len(lost)} of {len(wanted)} images are missing, the first is {lost[0]!r}; looked in "
            f"{' and '.join(map(str, roots))}; give --images DIR"
        )
    return {image: {"bytes": None, "path": path} for image, path in found.items()}


def _find(image: str, roots: Sequence[Path]) -> str | None:
    for root in roots:
        folder = os.path.abspath(root)
        path = os.path.normpath(os.path.join(folder, image))
        if os.path.commonpath([folder, path]) != folder:
            raise DataError(f"image {image!r} is not below {root}; give the benchmark's own files")
        if os.path.isfile(path):
            return path
    return None
