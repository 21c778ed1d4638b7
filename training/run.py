"""Train on any published dataset: ``python -m training.run CONFIG.yaml key=value ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command


def main(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file; its keys are those of training.config.TrainConfig.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For instance learning_rate=5e-6 lora.r=16.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Read and check the rows, say what would be trained and resumed; train nothing."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="With --plan: take a few steps for real, and say how long all of it takes."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --plan --measure: print only what was measured, as JSON.")
    ] = False,
) -> None:
    """Train a vision-language model on preference pairs: DPO and its relatives, mDPO, SymMPO.

    A killed run continues where it stopped when the same command is given again.

    The result is OUTPUT_DIR/model, a folder that transformers and vLLM load.
    """
    # Heavy imports stand here: --help answers without torch.
    from pipeline.base import model_names as models
    from pipeline.base.errors import ConfigError
    from training.config import load_config

    if (measure and not plan) or (as_json and not measure):
        raise ConfigError("--measure is for --plan, and --json for both", "add --plan --measure")
    loaded = load_config(config, overrides or [])
    loaded = loaded.model_copy(update={"model": models.resolve(loaded.model)})
    if as_json:
        import json
        from dataclasses import asdict

        from training.loop import launch

        typer.echo(json.dumps(asdict(launch.measure(loaded))))
        return
    if plan:
        from training.loop.rehearsal import rehearse

        for line in rehearse(loaded, measure):
            typer.echo(line)
        return
    from training.forward.saved_model import require_fitting

    require_fitting(loaded)  # a hub that is not there shows now, and not after its retries
    from training.loop.launch import run

    typer.echo(str(run(loaded).model))


app = command(main, progress=True)

if __name__ == "__main__":
    app()
