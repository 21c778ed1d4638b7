"""Measure a model: ``python -m training.evaluate MODEL --suite pope,chair --data DIR``.

Nobody imports this module.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from pipeline.sampling.config import Sample
    from training.evaluation.session.session import Judge

# Every other import stands in the function that needs it: --help answers without Arrow, Ray or torch.
#: Tokens of an answer, and of a judge's.
LONGEST, LONGEST_IN_SCENES, LONGEST_JUDGEMENT = 512, 128, 1024
_suites = partial(typer.Option, rich_help_panel="Options of suites")
_engine = partial(typer.Option, rich_help_panel="Engine")
_judged = partial(typer.Option, rich_help_panel="Judge")


@dataclass(frozen=True)
class SuiteOptions:
    """Options that have a flag, by their names in the suites; ``option`` reaches all of them."""

    option: Annotated[
        list[str] | None,
        _suites(
            metavar="SUITE.KEY=VALUE", help="Any option of one suite, such as chair.variant=original; may be repeated."
        ),
    ] = None
    parser: Annotated[
        str | None,
        _suites(
            help="How answers are read: official, lmms_eval, vlmevalkit, of multiple choice too; AMBER also exact."
        ),
    ] = None
    prompt: Annotated[str | None, _suites(help="Asks for a description, of CHAIR, SHR and scenes.")] = None
    suffix: Annotated[str | None, _suites(help="Stands behind every question.")] = None
    variant: Annotated[str | None, _suites(help="CHAIR: standalone, original, lmms_eval, object_halbench, coco80.")] = (
        None
    )
    synonyms: Annotated[
        Path | None, _suites(help="The list of CHAIR or Object HalBench, in place of the one in its folder.")
    ] = None
    nouns: Annotated[str | None, _suites(help="AMBER's descriptions: nltk, every_word.")] = None
    similarity: Annotated[str | None, _suites(help="AMBER's descriptions: spacy, exact.")] = None
    phrases: Annotated[str | None, _suites(help="Object HalBench: spacy, every_word.")] = None
    scenes: Annotated[int | None, _suites(min=1, help="How many, with --data scenes; left out, 500.")] = None

    def flags(self) -> dict[str, Any]:
        """What was given, ``option`` aside."""
        return {key: value for key, value in asdict(self).items() if key != "option" and value not in (None, "")}


@dataclass(frozen=True)
class ModelOptions:
    """How a model is asked."""

    max_tokens: Annotated[
        int | None, _engine(min=1, help=f"Of an answer; left out, {LONGEST}, over scenes {LONGEST_IN_SCENES}.")
    ] = None
    temperature: Annotated[float, _engine(min=0, help="0 is greedy.")] = 0.0
    revision: Annotated[str | None, _engine(help="Of a hub model, or what is known of a served one.")] = None
    base_url: Annotated[
        str | None,
        _engine(help="A server that speaks OpenAI's protocol, in place of vLLM here. Its key is in OPENAI_API_KEY."),
    ] = None
    engine: Annotated[
        list[str] | None,
        _engine(
            metavar="KEY=VALUE",
            help="As under sample.engine in a recipe, such as tensor_parallel_size=2; may be repeated.",
        ),
    ] = None


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges the answers of suites that need it."""

    judge: Annotated[str | None, _judged(help="A model as MODEL, or who wrote the --judgements.")] = None
    judge_base_url: Annotated[str | None, _judged(help="As --base-url.")] = None
    judge_revision: Annotated[str | None, _judged(help="Which build of it.")] = None
    judge_engine: Annotated[list[str] | None, _judged(metavar="KEY=VALUE", help="As --engine.")] = None
    judgements: Annotated[
        Path | None,
        _judged(
            help='Saved words of a judge, {"suite", "id", "judgement"} a line. What it is to read is written to '
            "to_judge.jsonl in the output."
        ),
    ] = None


def main(
    options: SuiteOptions,
    asking: ModelOptions,
    judging: JudgeOptions,
    model: Annotated[
        str | None, typer.Argument(help="A folder, a name on the hub, or a built-in model such as scenes-vlm.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: pope, chair, amber (or amber_generative, amber_discriminative), shr, "
            "object_halbench, mmhal, mme, scienceqa, seed, mmmu, mmbench, mmvet, or one of your own such as "
            "mylab.colours:Colours. Over scenes, all that can be asked there if left out."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|scenes",
            help="A clone of a benchmark's repository, a folder with several or with one for each suite, or the "
            "built-in world of scenes.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the images lie, such as COCO's folder; left out, beside the files."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Left out, runs/evaluate/MODEL. The same command goes on where it stopped.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many images of each suite, drawn.")] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Ask about these images of each suite: an id or file name a line, or a JSON list."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which images, which scenes, and how answers are drawn.")] = 0,
    max_failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Of prompts that may stay without an answer.")
    ] = 0.01,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            rich_help_panel="Comparison",
            metavar="A B",
            help="Two outputs of this command; asks no model. B - A is shown.",
        ),
    ] = None,
) -> None:
    """Ask a vision-language model the questions of hallucination benchmarks, and score its answers.

    In OUTPUT are then results.json, results.md, results.png, and every answer as an Arrow table. --compare tells two
    of them apart, image by image, with p-values.
    """
    from pipeline.base.errors import ConfigError

    if compare is not None:
        from training.evaluation.session.versus import versus

        typer.echo(versus(*compare, output or compare[1]))
        return
    if model is None:
        raise ConfigError("name a MODEL, or two outputs with --compare A B; see --help")
    if data is None:
        raise ConfigError("give --data DIR with the files of the benchmarks, or --data scenes")
    from pipeline.base.lock import locked
    from pipeline.base.sweep import sweep
    from pipeline.sampling.stage import slug
    from training.evaluation import benchmarks
    from training.evaluation import scenes as world
    from training.evaluation.session import session
    from training.evaluation.session.asking import by_suite
    from training.evaluation.session.option_names import as_flags
    from training.evaluation.suite import load

    in_scenes = data == "scenes"
    if in_scenes and (images is not None or ids is not None or options.suffix):
        raise ConfigError("--images, --ids and --suffix are for the files of benchmarks; scenes have their own")
    if suite is None and not in_scenes:
        raise ConfigError("name suites of the files, such as --suite pope,chair")
    names = benchmarks.names(suite or ",".join(world.SUITES))
    spec = _spec(model, asking, asking.max_tokens or (LONGEST_IN_SCENES if in_scenes else LONGEST))
    judge = _judge(judging)
    session.identity(spec)  # a model that is not there shows before anything is read
    flags, of_suites = options.flags(), by_suite(options.option or ())
    used = {key for name in names for key in benchmarks.options_of(benchmarks.find(name))}
    for key in sorted(flags.keys() - (world.OPTIONS if in_scenes else used)):
        typer.echo(f"note: --{key} changes nothing: no suite that is asked has it", err=True)
    if in_scenes:
        suites = world.load(names, world.config(limit, seed, flags), of_suites, flags)
    else:
        session.require_judge(names, judge)
        suites = load(names, Path(data), images, limit, seed, of_suites, flags, ids)
    place = output or Path("runs", "evaluate", slug(spec))
    with locked(place, "python -m training.evaluate"), as_flags():
        sweep(place)
        typer.echo(session.evaluate(suites, spec, place, judge, seed, max_failure_rate))
    typer.echo(f"\n{place}", err=True)


def _spec(model: str, asking: ModelOptions, max_tokens: int, of_judge: bool = False) -> Sample:
    from pipeline.running.pool import hardware
    from pipeline.scoring.run_dtype import with_dtype
    from training.evaluation.session.asking import sample_of
    from training.evaluation.session.option_names import as_flags

    with as_flags(of_judge):
        spec = sample_of(model, **{**asdict(asking), "max_tokens": max_tokens})
    there = hardware().dtype
    return with_dtype(spec, there) if there != "float32" else spec


def _judge(judging: JudgeOptions) -> Judge | None:
    from pipeline.base.errors import ConfigError
    from training.evaluation.session.session import Judge, identity

    name, file = judging.judge, judging.judgements
    if name is None:
        if file is not None:
            raise ConfigError(f"--judgements {file}: say with --judge NAME who wrote them; numbers differ by judge")
        return None
    if file is not None:
        return Judge(name, judging.judge_revision or "build unknown", file=file)
    asking = ModelOptions(None, 0.0, judging.judge_revision, judging.judge_base_url, judging.judge_engine)
    spec = _spec(name, asking, LONGEST_JUDGEMENT, of_judge=True)
    return Judge(name, identity(spec), spec)


app = command(main, progress=True)

if __name__ == "__main__":
    app()
