"""A benchmark with its questions, its pictures, and everything its numbers depend on: ready to be asked and scored."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from training.errors import DataError
from training.evaluation import benchmark_files, benchmarks, image_list, places
from training.evaluation.benchmark import Benchmark, Score
from training.evaluation.image_list import Entry, ImageList
from training.evaluation.question import COUNTS, Answer, Picture, Question
from training.evaluation.tally import Tally


@dataclass(frozen=True)
class Suite:
    """
    Args:
        pictures: what each of ``Question.images`` shows.
        score: a tally from the answers by id; they hold judgements where ``judge_prompt`` is given.
        judge_prompt: what a judge is asked about an answer, None where that answer needs no judgement. Without it, no
            judge is needed.
        graded: whether a judgement may be a bare number.
        data, files, prompt, parser, versions: see ``result.Provenance``; ``files`` is a digest of what the questions
            and truths were made from.
    """

    name: str
    version: str
    questions: tuple[Question, ...]
    pictures: Mapping[str, Picture]
    score: Callable[[Mapping[str, Answer]], Tally]
    data: str
    files: str
    prompt: str = "as in the data"
    parser: str = "none"
    versions: Mapping[str, str] = field(default_factory=dict)
    judge_prompt: Callable[[Question, str], str | None] | None = None
    graded: bool = False


def load(
    names: Iterable[str],
    data: Path,
    images: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shared: Mapping[str, Any] | None = None,
    ids: Path | Sequence[Entry] | None = None,
) -> list[Suite]:
    """The suites ``names`` over the files of their benchmarks.

    Args:
        data: the folder that holds one for each suite (``Benchmark.folder``), or what their authors give out, side by
            side or alone (``places``).
        images: where the images lie. What is not there, or all if None, is looked for beside the files. Not for images
            that come with their files (``Benchmark.own_images``, ``Opened.pictures``).
        limit: about how many images a suite asks, drawn by ``seed``; None for as many as it asks by itself.
        options, shared: see ``benchmarks.make``. ``ids`` of a suite stands in place of the next argument.
        ids: the images that are asked about, in place of those drawn, as a file or a list (``image_list``); ``limit``
            draws among them.

    Raises:
        DataError: a folder, a file, an image or a model that reads answers is missing, or a file is malformed.
        ConfigError: there is no such suite, it has no such option, or ``limit`` is not even one image.
    """
    drawn = {**(shared or {}), "seed": seed, **({} if limit is None else {"limit": limit})}
    options_of = {name: dict(given) for name, given in (options or {}).items()}
    lists = {name: given.pop("ids") for name, given in options_of.items() if "ids" in given}
    fixed = [name for name, given in options_of.items() if "limit" in given and (ids or lists.get(name)) is not None]
    if fixed:
        raise ConfigError(f"{fixed[0]}.limit and a list of ids: leave one out; --limit draws among the listed images")
    if limit is not None and limit < 1:
        raise ConfigError(
            f"limit is {limit}; give 1 or more images, or none of it for as many as a suite asks by itself"
        )
    names = list(names)
    made = benchmarks.make(names, options_of, drawn)
    if not data.is_dir():
        raise DataError(f"there is no folder {data}; give --data DIR with the files of benchmarks, or scenes")
    if images is not None and not images.is_dir():
        raise DataError(
            f"there is no folder {images}; give --images DIR, or leave it out where they lie beside the files"
        )
    suites = []
    for name, benchmark in zip(names, made, strict=True):
        listed = lists.get(name, lists.get(benchmark.name, ids))
        suites.append(_load(benchmark, data, images, limit, seed, None if listed is None else image_list.of(listed)))
    return suites


def _load(
    benchmark: Benchmark, data: Path, images: Path | None, limit: int | None, seed: int, listed: ImageList | None
) -> Suite:
    name = benchmark.name
    benchmark, folder = _located(benchmark, data)
    opened = _listed(benchmark, listed).open(folder)
    asked, version = _among(opened.questions, benchmark, listed)
    questions = limited(asked, limit, seed)
    _check(name, questions)
    identity = benchmarks.identity(benchmark)
    files = (path for pattern in benchmark.files for path in folder.glob(pattern) if path.is_file())
    roots = [folder]
    if not benchmark.own_images:
        roots = places.image_folders(images, data, benchmark.folder or name, folder, benchmark.image_places)
    return Suite(
        name=name,
        version=benchmark.version,
        questions=tuple(questions),
        pictures=_pictures(name, questions, roots, opened.pictures, benchmark.image_places),
        score=partial(_score, opened.score, questions),
        data=benchmark.title or name,
        files=benchmark_files.digest(files if opened.files is None else opened.files),
        prompt=_prompt(benchmark),
        parser=getattr(benchmark, "parser", "none"),
        versions={**opened.versions, **version, **({} if identity is None else {"benchmark": identity})},
        judge_prompt=benchmark.judge_prompt if benchmark.judged else None,
        graded=benchmark.graded,
    )


def _located(benchmark: Benchmark, data: Path) -> tuple[Benchmark, Path]:
    """The folder with the files, and the benchmark that knows where its ``parts`` are.

    Raises:
        DataError: something is not there.
    """
    name, subfolder = benchmark.name, benchmark.folder or benchmark.name
    if benchmark.given_out is not None:
        folder = places.find(benchmark.given_out, data, subfolder, name)
    else:
        folder = data / subfolder
        if not folder.is_dir():
            of = f" of {benchmark.source}" if benchmark.source else ""
            raise DataError(
                f"suite {name}: there is no folder {folder}; put the benchmark's own files there: "
                f"{', '.join(benchmark.files)}{of}"
            )
    parts = {}
    for option, part in benchmark.parts().items():
        if getattr(benchmark, option) is None:
            parts[option] = part.path(places.find(part, data, subfolder, name, beside=[folder]))
    return (replace(benchmark, **parts) if parts else benchmark), folder  # type: ignore[type-var]


def _listed(benchmark: Benchmark, listed: ImageList | None) -> Benchmark:
    """The benchmark that asks about the listed images: it draws none itself, so that all of them are there."""
    names = benchmarks.options_of(type(benchmark))
    values = {key: value for key, value in (("ids", listed), ("limit", None)) if listed is not None and key in names}
    return replace(benchmark, **values) if values else benchmark  # type: ignore[type-var]


def _among(
    questions: Sequence[Question], benchmark: Benchmark, listed: ImageList | None
) -> tuple[Sequence[Question], dict[str, str]]:
    """The questions about the listed images, and what is told of these; all, if there is no list.

    Raises:
        DataError: an entry is no image of the suite.
    """
    if listed is None:
        return questions, {}
    if "ids" not in benchmarks.options_of(type(benchmark)):
        images = set(listed.among({question.image: question.image for question in questions}, benchmark.name))
        questions = [question for question in questions if question.image in images]
    names = sorted({question.image for question in questions})
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:16]
    return questions, {"images": f"{len(names)} listed, {digest}"}


def _check(name: str, questions: Sequence[Question]) -> None:
    """
    Raises:
        DataError: there is no question, or two have one id.
    """
    if not questions:
        raise DataError(f"suite {name} has no questions; give the benchmark's own files")
    (id, count), *_ = Counter(question.id for question in questions).most_common(1)
    if count > 1:
        raise DataError(f"suite {name}: id {id!r} is there twice; every question needs an id of its own")


def _score(score: Score, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
    """
    Raises:
        ValueError: ids differ, a judgement is missing, or answers were left out without being counted.
    """
    tally = score(questions, answers)
    if not isinstance(tally, Tally):
        raise ValueError(f"score returned {type(tally).__name__}; return Tally.of(rows, counts=counts)")
    if tally.counts.get("asked") != len(questions):
        raise ValueError(
            f"score counts {tally.counts.get('asked', 0)} of {len(questions)} questions; take the answers and the "
            "counts from training.evaluation.question.pairs"
        )
    odd = sorted(set(tally.images) - {question.image for question in questions})
    if odd:
        raise ValueError(f"score has terms of image {odd[0]!r}, which no question is about")
    lost = sorted(
        {question.image for question in questions if answers[question.id].text is not None} - set(tally.images)
    )
    if lost and not any(count for name, count in tally.counts.items() if name not in COUNTS):
        raise ValueError(
            f"score forgets {len(lost)} images with an answer, the first is {lost[0]!r}; add the terms of every "
            "answer, or count those that are left out"
        )
    return tally


def limited(questions: Sequence[Question], images: int | None, seed: int = 0) -> list[Question]:
    """The questions about ``images`` images, drawn whatever the order of the questions; all, if None."""
    names = sorted({question.image for question in questions})
    if images is None or images >= len(names):
        return list(questions)
    kept = set(random.Random(f"limit:{seed}").sample(names, images))
    return [question for question in questions if question.image in kept]


def _prompt(benchmark: Benchmark) -> str:
    """What is told of the text of the questions."""
    if hasattr(benchmark, "prompt"):
        return str(benchmark.prompt)
    suffix = getattr(benchmark, "suffix", "")
    return f"as in the data, and {suffix!r} behind it" if suffix else "as in the data"


def _pictures(
    name: str,
    questions: Sequence[Question],
    roots: Sequence[Path],
    inside: Mapping[str, Picture],
    image_places: Sequence[str],
) -> dict[str, Picture]:
    """Where every image lies: inside the files, or in the first of ``roots`` that has it.

    Raises:
        DataError: some are missing; the message names the first and says how many.
    """
    images = dict.fromkeys(image for question in questions for image in question.images)
    pictures = {image: inside[image] if image in inside else _find(image, roots) for image in images}
    lost = [image for image, picture in pictures.items() if picture is None]
    if lost:
        looked = (
            f"looked in {' and '.join(map(str, roots))}" if roots else "there is no folder of images beside the files"
        )
        inner = "".join(f", or the one that {place.rpartition('/')[2]} lies in" for place in image_places[:1])
        raise DataError(
            f"suite {name}: {len(lost)} of {len(images)} images are missing, the first is {lost[0]!r}; "
            f"{looked}; give --images DIR, their folder{inner}"
        )
    return {image: picture for image, picture in pictures.items() if picture is not None}


def _find(image: str, roots: Sequence[Path]) -> Picture | None:
    for root in roots:
        folder = os.path.abspath(root)
        path = os.path.normpath(os.path.join(folder, image))
        if os.path.commonpath([folder, path]) != folder:
            raise DataError(f"image {image!r} is not below {root}; give the benchmark's own files")
        if os.path.isfile(path):
            return {"bytes": None, "path": path}
    return None
