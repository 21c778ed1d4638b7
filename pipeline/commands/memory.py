"""How much GPU memory a model takes: ``vlm-preference memory [MODEL] [KEY=VALUE]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from training.sizing.architecture import Architecture


def main(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL] [KEY=VALUE]...",
            help="Folder or hub id of a model; left out: the shapes of docs/gpu.md. Options of training, such as "
            "lora.r=16 micro_batch_size=2; left out: a row for each usual way.",
        ),
    ] = None,
    text: Annotated[int, typer.Option(min=1, help="Tokens of a prompt without its image.")] = 60,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 150,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT|TOKENS", help="Size of MODEL's images in pixels (1280x960), or their tokens."
        ),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Answers to a prompt.")] = 8,
) -> None:
    """Which GPUs sampling and training need, and how many of them, computed from the model's configuration.

    No weights are read. The formula is in docs/gpu.md.
    """
    from pipeline.base.errors import ConfigError
    from training.sizing.architecture import read_architecture
    from training.sizing.cards import ROWS, table
    from training.sizing.shapes import SHAPES
    from training.sizing.train_memory import Lengths

    models = [argument for argument in arguments or () if "=" not in argument]
    overrides = [argument for argument in arguments or () if "=" in argument]
    if len(models) > 1:
        raise ConfigError(f"{len(models)} models are named: {', '.join(models)}", "name one")
    if image is not None and not models:
        raise ConfigError("--image is for a model of yours", "name MODEL, or leave --image out")
    rows = {" ".join(overrides): _options(overrides)} if overrides else ROWS
    if models:
        shapes = {models[0]: _read(models[0], image or "1280x960")}
    else:
        shapes = {name: (read_architecture(shape.config(), name), shape.image) for name, shape in SHAPES.items()}
    for architecture, tokens in shapes.values():
        typer.echo(table(architecture, Lengths(tokens + text, answer), n, rows) + "\n")


def _options(overrides: list[str]) -> dict[str, Any]:
    from pipeline.base import config_file
    from training.config import TrainOptions

    # What is left to the hardware is as on a GPU without room to spare.
    on_gpu = {"dtype": "bfloat16", "gradient_checkpointing": True}
    return config_file.overridden(TrainOptions, on_gpu, overrides).model_dump(exclude_unset=True)


def _read(model: str, image: str) -> tuple[Architecture, int]:
    """The architecture of a folder or of the hub, and how many tokens an image has there.

    Raises:
        ConfigError: ``image`` is neither a size nor a number.
        ModelError: there is no such model.
    """
    import re

    from pipeline.base import model_names
    from pipeline.base.errors import ConfigError
    from training.config import make_config
    from training.forward.model import read_config
    from training.sizing.architecture import image_tokens, read_architecture

    size = re.fullmatch(r"(\d+)(?:x(\d+))?", image)
    if size is None or not all(int(number or 1) for number in size.groups()):
        raise ConfigError(f"--image {image}: it is neither a size nor a number of tokens", "write 1280x960, or 576")
    config = make_config({"model": model_names.resolve(model), "dataset": "-", "output_dir": "-"})
    architecture = read_architecture(read_config(config), model)
    tokens = int(size[1]) if size[2] is None else image_tokens(config, int(size[1]), int(size[2]))
    return architecture, tokens


app = command(main)

if __name__ == "__main__":
    app()
