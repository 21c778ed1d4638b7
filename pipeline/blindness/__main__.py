"""How well the pairs of a dataset are told without their images: ``python -m pipeline.blindness DATASET``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command

RESULT = "blindness.json"


def main(
    dataset: Annotated[str, typer.Argument(help="Pairs in any schema of training.formats: a folder, a file, a name.")],
    model: Annotated[
        str | None,
        typer.Option(help="A vision-language model that reads the pairs too: folder, built-in name or hub id."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where blindness.json and the model's log-probs go; default: nowhere.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Columns whose values are told apart; default: source, policy and writers, if there."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Pairs that the model reads.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per forward pass of the model.")] = 16,
    image_root: Annotated[
        str | None,
        typer.Option(help="What image paths are relative to, for the model; default: the dataset's folder."),
    ] = None,
    dataset_format: Annotated[
        str | None, typer.Option(help="The schema, where the columns fit several (docs/datasets.md).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of several; default: train.")] = None,
) -> None:
    """How often the chosen text is told from the rejected one without the image; chance is one half.

    A classifier reads the texts of some pairs and is asked about the others. docs/blindness.md says what the numbers
    mean and what to do about them.
    """
    # Heavy imports stand here: --help answers without torch.
    from pipeline.base import files
    from pipeline.base.lock import locked
    from pipeline.blindness.in_words import page
    from pipeline.blindness.measure_blindness import measure
    from training.formats.unseen_pairs import UnseenPairs

    columns = [name for column in by.split(",") if (name := column.strip())] if by is not None else None
    pairs = UnseenPairs(dataset, columns, dataset_format, split)
    blindness = measure(*pairs.drawn())
    readers = {}
    with tempfile.TemporaryDirectory() as nowhere, locked(output or Path(nowhere), "python -m pipeline.blindness"):
        if model is not None:
            from training.evaluation.probing.blind_readers import SHOWN, read_by_model
            from training.evaluation.probing.request import ProbeRequest

            request = ProbeRequest(
                model,
                dataset,
                output or Path(nowhere),
                conditions=("none", "swapped"),
                limit=limit,
                batch_size=batch_size,
                image_root=image_root,
                dataset_format=dataset_format,
                split=split,
            )
            readers = {SHOWN[shown]: accuracy for shown, accuracy in read_by_model(request, pairs).items()}
        if output is not None:
            content = {**blindness.as_json(), "model": model, "readers": {k: asdict(v) for k, v in readers.items()}}
            files.write_text(output / RESULT, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    typer.echo(page(blindness, {f"{model}, shown {shown}": accuracy for shown, accuracy in readers.items()}))


app = command(main, named=(ValueError,))

if __name__ == "__main__":
    app()
