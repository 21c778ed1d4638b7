"""Measure a model: ``python -m training.evaluate MODEL --suite pope,chair --data DIR``.

Nobody imports this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from training.evaluation.session.measure import Judge

# Every other import stands in the function that needs it: --help answers without Arrow, Ray or torch.
#: Tokens of an answer, and of a judge's.
LONGEST, LONGEST_IN_SCENES, LONGEST_JUDGEMENT = 512, 128, 1024
_COMPARE, _JUDGE, _ENGINE = "Comparison", "Judge", "Engine"


def main(
    model: Annotated[
        str | None, typer.Argument(help="A folder, a name on the hub, or a built-in model such as scenes-vlm.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: pope, chair, amber (or amber_generative, amber_discriminative), shr, "
            "object_halbench, mmhal. Over scenes, all that can be asked there if left out."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|scenes", help="The folder that holds one for each suite, or the built-in world of scenes."
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Where the images lie; left out, in images/ of each suite's folder.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Left out, runs/evaluate/MODEL. The same command goes on where it stopped.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about so many images of each suite, drawn.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="How many held-out scenes, with --data scenes.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Which images, which scenes, and how answers are drawn.")] = 0,
    parser: Annotated[
        str | None, typer.Option(help="How yes and no are read: official, lmms_eval, vlmevalkit; of AMBER also exact.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Asks for a description, of CHAIR, SHR and scenes.")] = None,
    suffix: Annotated[str, typer.Option(help="Stands behind every question of POPE and AMBER.")] = "",
    variant: Annotated[
        str, typer.Option(help="Of CHAIR: standalone, original, lmms_eval, object_halbench, coco80.")
    ] = "standalone",
    synonyms: Annotated[Path | None, typer.Option(help="CHAIR's list; left out, synonyms.txt of its folder.")] = None,
    nouns: Annotated[str, typer.Option(help="Of AMBER's descriptions: nltk, every_word.")] = "nltk",
    similarity: Annotated[str, typer.Option(help="Of AMBER's descriptions: spacy, exact.")] = "spacy",
    phrases: Annotated[str, typer.Option(help="Of Object HalBench: spacy, every_word.")] = "spacy",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help=f"Of an answer; left out, {LONGEST}, over scenes {LONGEST_IN_SCENES}.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    max_failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Of prompts that may stay without an answer.")
    ] = 0.01,
    revision: Annotated[
        str | None, typer.Option(rich_help_panel=_ENGINE, help="Of a hub model, or what is known of a served one.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_ENGINE,
            help="A server that speaks OpenAI's protocol, in place of vLLM here. Its key is in OPENAI_API_KEY.",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_ENGINE,
            metavar="KEY=VALUE",
            help="As under sample.engine in a recipe, such as tensor_parallel_size=2; may be repeated.",
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(rich_help_panel=_JUDGE, help="A model as MODEL, or who wrote the --judgements.")
    ] = None,
    judge_base_url: Annotated[str | None, typer.Option(rich_help_panel=_JUDGE, help="As --base-url.")] = None,
    judge_revision: Annotated[str | None, typer.Option(rich_help_panel=_JUDGE, help="Which build of it.")] = None,
    judge_engine: Annotated[
        list[str] | None, typer.Option(rich_help_panel=_JUDGE, metavar="KEY=VALUE", help="As --engine.")
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_JUDGE,
            help='Saved words of a judge, {"suite", "id", "judgement"} a line. What it is to read is written to '
            "to_judge.jsonl in the output.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            rich_help_panel=_COMPARE, metavar="A B", help="Two outputs of this command; asks no model. B - A is shown."
        ),
    ] = None,
) -> None:
    """Ask a vision-language model the questions of hallucination benchmarks, and score its answers.

    In OUTPUT are then results.json, results.md, results.png, and every answer as an Arrow table. --compare tells two
    of them apart, image by image, with p-values.
    """
    from training.errors import ConfigError

    if compare is not None:
        from training.evaluation.session.versus import versus

        typer.echo(versus(*compare, output or compare[1]))
        return
    if model is None:
        raise ConfigError("name a MODEL, or two outputs with --compare A B; see --help")
    if data is None:
        raise ConfigError("give --data DIR with a folder for each suite, or --data scenes")
    from pipeline.base.lock import locked
    from pipeline.sampling.stage import slug
    from training.config.evaluation import EvaluateConfig
    from training.evaluation.session import measure
    from training.evaluation.session.asking import asked
    from training.evaluation.suites import benchmarks
    from training.evaluation.suites import scenes as world

    in_scenes = data == "scenes"
    if in_scenes and (images is not None or suffix):
        raise ConfigError("--images and --suffix are for the files of benchmarks; scenes have their own")
    if suite is None and not in_scenes:
        raise ConfigError("name suites, such as --suite pope,chair")
    names = measure.names(suite or ",".join(world.SUITES))
    longest = max_tokens or (LONGEST_IN_SCENES if in_scenes else LONGEST)
    spec = asked(
        model,
        max_tokens=longest,
        temperature=temperature,
        revision=revision,
        base_url=base_url,
        engine=engine or (),
    )
    judging = _judge(judge, judge_base_url, judge_revision, judge_engine or [], judgements)
    measure.identity(spec)  # a model that is not there shows before anything is read
    if in_scenes:
        known = EvaluateConfig.model_validate({})
        told = {"scenes": limit or scenes, "seed": known.seed + seed, "describe": prompt or known.describe}
        loaded = world.load(names, known.model_copy(update=told), parser)
    else:
        measure.require_judge(names, judging)
        options = benchmarks.Options(
            Path(data), images, limit, seed, parser, prompt, suffix, variant, synonyms, nouns, similarity, phrases
        )
        loaded = benchmarks.load(names, options)
    place = output or Path("runs", "evaluate", slug(spec))
    with locked(place, "python -m training.evaluate"):
        typer.echo(measure.evaluate(loaded, spec, place, judging, seed, max_failure_rate))
    typer.echo(f"\n{place}", err=True)


def _judge(
    name: str | None, base_url: str | None, revision: str | None, engine: list[str], file: Path | None
) -> Judge | None:
    from training.errors import ConfigError
    from training.evaluation.session import measure
    from training.evaluation.session.asking import asked

    if name is None:
        if file is not None:
            raise ConfigError(f"--judgements {file}: say with --judge NAME who wrote them; numbers differ by judge")
        return None
    if file is not None:
        return measure.Judge(name, revision or "build unknown", file=file)
    spec = asked(name, max_tokens=LONGEST_JUDGEMENT, revision=revision, base_url=base_url, engine=engine)
    return measure.Judge(name, measure.identity(spec), spec)


app = command(main)

if __name__ == "__main__":
    app()
