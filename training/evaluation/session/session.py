"""One evaluation: ask a model all questions of all suites at once, have answers judged, score, and write it down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.files import write_text
from pipeline.base.progress import Progress
from pipeline.running.executor import Executor
from pipeline.running.resume import check_schema
from pipeline.running.store import Run, libraries
from pipeline.sampling.config import OpenAIOptions, PluggedOptions, Sample, VllmOptions
from training.errors import DataError
from training.evaluation import benchmarks
from training.evaluation.benchmarks import amber
from training.evaluation.question import Answer
from training.evaluation.result import Provenance
from training.evaluation.session import judgements, markdown, plot, stored
from training.evaluation.session.generate import (
    ANSWERS,
    JUDGEMENTS,
    SHARD_SIZE,
    ImagePrompt,
    generate,
    identify,
    revision,
)
from training.evaluation.session.preprocessing import build, preprocessing
from training.evaluation.suite import Suite
from training.evaluation.tally import Tally

_ANOTHER = (
    "give another --output, or go on with this one in the version that made it; its results are compared as ever "
    "(--compare)"
)


@dataclass(frozen=True)
class Judge:
    """Who judges: ``spec`` is a model to ask, or ``file`` holds what was said (``judgements.by_file``).

    Raises:
        ConfigError: there is neither, or both.
    """

    name: str
    version: str
    spec: Sample | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if (self.spec is None) == (self.file is None):
            raise ConfigError(f"judge {self.name}: give either a model to ask or a file of its judgements")


def require_judge(suites: Iterable[str], judge: Judge | None) -> None:
    """
    Raises:
        ConfigError: a suite needs a judge, and there is none.
    """
    lost = [name for name in suites if benchmarks.find(name).judged]
    if lost and judge is None:
        raise ConfigError(
            f"suite {lost[0]} needs a judge: give --judge MODEL (with --judge-base-url for a server), or --judgements "
            "FILE --judge NAME with what a judge has said"
        )


def prompts_of(suites: Iterable[Suite]) -> dict[tuple[str, str], ImagePrompt]:
    """Every question by suite and id, as the model is asked."""
    return {
        (suite.name, question.id): ImagePrompt(
            question.prompt, tuple(suite.pictures[image] for image in question.images)
        )
        for suite in suites
        for question in suite.questions
    }


def evaluate(
    suites: Sequence[Suite],
    spec: Sample,
    output: Path,
    judge: Judge | None = None,
    seed: int = 0,
    max_failure_rate: float = 0.01,
    progress: Progress | None = None,
    shard_size: int = SHARD_SIZE,
) -> str:
    """The Markdown table of the results. In ``output`` are then ``results.json``, ``tallies.json``, ``results.md`` and
    ``results.png``, and the stages with every prompt and every answer.

    Raises:
        DataError: an image cannot be read, or an answer has no judgement.
        StoreError: in ``output`` are answers of a version with other tables.
        PipelineError: a model cannot be opened, or too many answers failed. The same call goes on.
    """
    run = Run(output)
    check_schema(run, (*ANSWERS, *JUDGEMENTS), _ANOTHER)
    prompts = prompts_of(suites)
    ids = identify(prompts)
    # Left there while answers change, old results would describe answers that no longer exist.
    for name in (stored.RESULTS, stored.TALLIES, "results.md", "results.png"):
        (run.path / name).unlink(missing_ok=True)
    # Greedy answers have no seed: another one shall not throw them away.
    drawn = seed if spec.temperature else 0
    with Executor(run, max_failure_rate=1.0, progress=progress) as executor:
        answers = generate(
            run, executor, prompts, ids, spec, drawn, max_failure_rate=max_failure_rate, shard_size=shard_size
        )
        answers = _with_judgements(run, executor, suites, answers, judge)
    tallies = {suite.name: _score(suite, answers) for suite in suites}
    revisions = {suite.name: revision(ids[suite.name, question.id] for question in suite.questions) for suite in suites}
    about = {suite.name: _provenance(suite, spec, drawn, revisions[suite.name], judge) for suite in suites}
    _add_amber(tallies, about)
    return keep(run.path, spec.model, tallies, about)


def keep(
    folder: Path,
    model: str,
    tallies: Mapping[str, Tally],
    about: Mapping[str, Provenance],
    pooled: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Write the results of a model, and return their Markdown table. ``pooled``: see ``stored.save``."""
    content = stored.save(folder, model, tallies, about, libraries(), pooled)
    text = markdown.results(content)
    write_text(folder / "results.md", text + "\n")
    plot.results(content, folder / "results.png")
    return text


def identity(spec: Sample) -> str:
    """Which build of a model answers: the content of a folder or the commit of a hub model; what is known of a served
    one."""
    if isinstance(spec.engine, VllmOptions):
        return build(spec.model, spec.revision)
    if isinstance(spec.engine, OpenAIOptions):
        return spec.revision or "as served, build unknown"
    if isinstance(spec.engine, PluggedOptions):
        return spec.engine.identity
    return spec.engine.kind


def _with_judgements(
    run: Run,
    executor: Executor,
    suites: Sequence[Suite],
    answers: Mapping[judgements.Place, Answer],
    judge: Judge | None,
) -> dict[judgements.Place, Answer]:
    asking = judgements.to_judge(suites, answers)
    if not asking:
        return dict(answers)
    if judge is None:
        raise ConfigError(f"{len(asking)} answers need a judge; give --judge MODEL, or --judgements FILE --judge NAME")
    if judge.file is not None:
        graded = {suite.name for suite in suites if suite.graded}
        said = judgements.by_file(judge.file, asking, answers, run.path, graded)
        return judgements.with_judgements(answers, said)
    assert judge.spec is not None
    return judgements.with_judgements(answers, judgements.by_model(run, executor, asking, judge.spec))


def _score(suite: Suite, answers: Mapping[judgements.Place, Answer]) -> Tally:
    of_suite = {question.id: answers[suite.name, question.id] for question in suite.questions}
    try:
        tally = suite.score(of_suite)
    except ValueError as error:
        raise DataError(f"suite {suite.name}: {error}") from error
    return replace(tally, failed=tuple(sorted(id for id, answer in of_suite.items() if answer.text is None)))


def _add_amber(tallies: dict[str, Tally], about: dict[str, Provenance]) -> None:
    """AMBER's score, if both parts were asked and every image has answers of both."""
    parts = [name for name in benchmarks.TOGETHER["amber"].parts if name in tallies]
    if len(parts) < 2 or tallies[parts[0]].images != tallies[parts[1]].images:
        return
    both = amber.together(*(tallies[name] for name in parts))
    sums = {name: both.sums[name] for name in ("chair", "f1")}
    tallies["amber"] = replace(both, sums=sums)
    of_descriptions, of_questions = (about[name] for name in parts)
    about["amber"] = replace(
        of_questions,
        suite=f"amber@{amber.VERSION}",
        data_revision=f"{of_descriptions.data_revision} and {of_questions.data_revision}",
        prompt=f"{of_descriptions.prompt}, and {of_questions.prompt}",
        versions=of_descriptions.versions,
    )


def _provenance(suite: Suite, spec: Sample, seed: int, prompts: str, judge: Judge | None) -> Provenance:
    decoding: dict[str, Any] = {"temperature": spec.temperature, "top_p": spec.top_p, "max_tokens": spec.max_tokens}
    decoding |= {"seed": seed} if spec.temperature else {}
    by = judge if suite.judge_prompt is not None else None
    return Provenance(
        suite=f"{suite.name}@{suite.version}",
        model=spec.model,
        model_revision=identity(spec),
        data=suite.data,
        data_revision=f"{suite.files}:{prompts}",
        prompt=suite.prompt,
        decoding=decoding,
        image_preprocessing=preprocessing(spec),
        parser=suite.parser,
        versions=suite.versions,
        judge=None if by is None else by.name,
        judge_version=None if by is None else by.version,
    )
