"""What is wrong with a run before it begins: everything at once, and not after hours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.base.errors import InputError, SeveralProblems, UserError
from pipeline.base.model_files import ANY_WEIGHTS, require_model
from pipeline.engines.openai import OpenOpenAI
from pipeline.engines.vllm import OpenVllm
from pipeline.publishing.publish import masked_vocabulary
from pipeline.recipe.plan import GROUPS, Plan, group
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Run

#: Seconds that a server has to say what it serves.
_SERVER_TIMEOUT_S = 5.0
#: What a message begins with that names a key of the recipe.
_KEY = re.compile(r"^[a-z_]+(\.[a-z_]+)+: ")


def check(plan: Plan, wanted: Collection[str] = GROUPS) -> None:
    """
    Raises:
        PipelineError: a file, a vocabulary or a model of the stages among ``wanted`` is not there. All that is not, in
            one message.
    """
    raise_all(problems(plan, wanted))


def problems(plan: Plan, wanted: Collection[str] = GROUPS, servers: bool = False) -> list[UserError]:
    """What keeps the stages from the source to published pairs from running. ``servers``: those that are asked must
    answer, too. Models are looked for only where a stage has something left to do."""
    stages: list[Source | Stage] = []
    wrong = raised([lambda: stages.extend(plan.generation())])
    wrong += raised([*(stage.options for stage in stages), lambda: masked_vocabulary(plan.recipe.publish)])
    rewriting = plan.rewriting()
    names = rewriting.names() if rewriting else ()
    chosen = [stage for stage in stages if group(stage.name, names) in wanted]
    missing = [(stage.name, error) for stage in chosen for error in raised([partial(_reach, stage, servers)])]
    if wrong:
        return distinct([*wrong, *(error for _, error in missing)])
    if missing:
        pending = {outlook.stage for outlook in plan.outlook(Run(plan.recipe.run_dir)) if outlook.reasons}
        missing = [(name, error) for name, error in missing if name in pending]
    return distinct([*_lost_tables(plan, chosen), *(error for _, error in missing)])


def _lost_tables(plan: Plan, chosen: Sequence[Source | Stage]) -> Iterator[InputError]:
    """Tables that stages read, and that neither they nor an earlier session have made."""
    made = {stage.name for stage in chosen}
    run = Run(plan.recipe.run_dir)
    for name in dict.fromkeys(name for stage in chosen for name in stage.inputs):
        if name not in made and not run.shards(name):
            readers = ", ".join(stage.name for stage in chosen if name in stage.inputs)
            yield InputError(f"{readers} would read {name!r}, which nobody has made", "add its stage to --stages")


def raised(steps: Iterable[Callable[[], Any]]) -> list[UserError]:
    """The errors of the steps, each of which is taken whatever became of the others."""
    errors: list[UserError] = []
    for step in steps:
        try:
            step()
        except UserError as error:
            errors.append(error)
    return errors


def distinct(errors: Iterable[UserError]) -> list[UserError]:
    """Without those that say what another has said: a lost file fails every stage that reads it, and every key that
    takes its value from another key."""
    first: dict[str, UserError] = {}
    for error in errors:
        first.setdefault(_KEY.sub("", str(error)), error)
    return list(first.values())


def raise_all(errors: Iterable[UserError]) -> None:
    """
    Raises:
        UserError: there is an error; with several, one whose message has a line for each.
    """
    different = distinct(errors)
    if len(different) == 1:
        raise different[0]
    if different:
        lines = "\n".join(f"  - {_line(error)}" for error in different)
        raise SeveralProblems(f"{len(different)} things keep this run from starting:\n{lines}")


def _line(error: UserError) -> str:
    message, _, remedy = str(error).partition("\n  -> ")
    return " ".join(f"{message}; {remedy}".split()) if remedy else " ".join(message.split())


def _reach(stage: Source | Stage, servers: bool) -> None:
    worker = None if isinstance(stage, Source) else stage.worker
    if worker is not None:
        reach(worker.open, servers)


def reach(opener: Callable[[], Any], servers: bool) -> None:
    """Whether what ``opener`` opens is there, without opening it.

    Raises:
        EngineError: a model is not there, or, with ``servers``, a server does not answer or serves other models.
    """
    if isinstance(opener, OpenVllm):
        weights = () if opener.load_format == "dummy" else ANY_WEIGHTS
        require_model(opener.model, opener.revision, weights[:1] if opener.load_format == "safetensors" else weights)
    elif isinstance(opener, OpenOpenAI) and servers:
        replace(opener, timeout_s=min(opener.timeout_s, _SERVER_TIMEOUT_S), retries=0)().close()
