"""Other benchmarks through lmms-eval: ``python -m training.evaluation.lmms_eval MODEL --tasks mmstar,ocrbench``.

Nobody imports this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command

# Every other import stands in the function that needs it: --help answers without Arrow, Ray or torch.
_KEY_VALUE = "KEY=VALUE"


def main(
    model: Annotated[str, typer.Argument(help="A folder, a name on the hub, or a built-in model.")],
    tasks: Annotated[
        list[str] | None, typer.Option(help="Comma-separated names of its tasks, such as mmstar,ocrbench.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Read what an earlier call of it wrote there (--output_path), and run nothing.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Left out, runs/lmms_eval/MODEL.")] = None,
    backend: Annotated[str, typer.Option(help="Its --model, such as vllm, qwen2_5_vl or llava_hf.")] = "vllm",
    model_arg: Annotated[
        list[str] | None,
        typer.Option(metavar=_KEY_VALUE, help="Of the backend, such as tensor_parallel_size=2; may be repeated."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_KEY_VALUE, help="Of its command line, such as batch_size=8 or include_path=DIR; may be repeated."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask so many samples of each task.")] = None,
    python: Annotated[
        str | None, typer.Option(help="The interpreter of the environment that has it; left out, this one.")
    ] = None,
) -> None:
    """Run tasks of an installed lmms-eval on a model, and keep its results as training.evaluate keeps its own.

    In OUTPUT are then results.json, results.md and results.png, and in OUTPUT/lmms_eval what it wrote itself.
    python -m training.evaluate --compare A B takes two of them, sample by sample where these were logged.
    """
    import sys

    from pipeline.base.errors import ConfigError
    from pipeline.base.lock import locked
    from pipeline.sampling.stage import slug
    from training.evaluation.session import lmms_eval_call, lmms_eval_results
    from training.evaluation.session.asking import key_values, sample_of
    from training.evaluation.session.session import identity, keep

    names = lmms_eval_call.split_tasks(tasks or ())
    if bool(names) == (results is not None):
        raise ConfigError("give either --tasks mmstar,ocrbench or --results DIR; see --help")
    spec = sample_of(model, max_tokens=1)
    build = identity(spec)
    place = output or Path("runs", "lmms_eval", slug(spec))
    with locked(place, "python -m training.evaluation.lmms_eval"):
        lmms_eval_results.check_place(place)
        version = None
        if results is None:
            interpreter = python or sys.executable
            version = lmms_eval_call.version(interpreter)
            options = key_values("--option", option or (), "batch_size=8")
            call = lmms_eval_call.LmmsEval(
                interpreter,
                model,
                names,
                backend,
                key_values("--model-arg", model_arg or (), "tensor_parallel_size=2"),
                options if limit is None else {**options, "limit": limit},
            )
            results = call.run(place / "lmms_eval")
        suites = lmms_eval_results.read(results, model, build, version)
        typer.echo(
            keep(
                place,
                model,
                {name: suite.tally for name, suite in suites.items()},
                {name: suite.provenance for name, suite in suites.items()},
                {name: suite.pooled for name, suite in suites.items()},
            )
        )
    typer.echo(f"\n{place}", err=True)


app = command(main)

if __name__ == "__main__":
    app()
