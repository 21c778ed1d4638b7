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
) -> None:
    """Train a vision-language model on preference pairs: DPO and its relatives, mDPO, SymMPO.

    A killed run continues where it stopped when the same command is given again.

    The result is OUTPUT_DIR/model, a folder that transformers and vLLM load.
    """
    # Heavy imports stand here: --help answers without torch.
    from pipeline.base import model_names as models
    from training.config import load_config

    loaded = load_config(config, overrides or [])
    loaded = loaded.model_copy(update={"model": models.resolve(loaded.model)})
    if plan:
        from training.loop.rehearsal import rehearse

        for line in rehearse(loaded):
            typer.echo(line)
        return
    from training.loop.launch import run

    typer.echo(str(run(loaded).model))


app = command(main, progress=True)

if __name__ == "__main__":
    app()
