"""Good answers of the built-in world, for the SFT stream of a training:
``python -m pipeline.scenes.models_build.good_answers OUT.parquet``.

True descriptions of scenes, in the wordings of the grammar. HA-DPO (arXiv 2311.16839) goes on with the data that its
MiniGPT-4 was tuned on, image descriptions; these are the built-in model's, without what it was taught to make up.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet
import typer

from pipeline.base.command import command
from pipeline.base.tables import IMAGE, MESSAGE
from pipeline.scenes import grammar, raster
from pipeline.scenes.world import scene

#: Stream of the scenes: neither those of the models' own training, nor of recipes or evaluations.
SEED = 8_000_001
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("prompt", pa.list_(MESSAGE)),
        ("chosen", pa.list_(MESSAGE)),
    ]
)


def rows(scenes: int, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """One request for a description per scene, with a true one that names everything, as rows of ``SCHEMA``."""
    for index in range(scenes):
        shown = scene(seed, index)
        rng = random.Random(f"sft:{seed}:{index}")
        name = f"scene-{seed}-{index}"
        yield {
            "id": name,
            "images": [{"bytes": raster.png(shown), "path": f"{name}.png"}],
            "prompt": [{"role": "user", "content": rng.choice(grammar.DESCRIBE)}],
            "chosen": [{"role": "assistant", "content": grammar.describe(grammar.reading_order(shown), rng)}],
        }


def main(
    out: Annotated[Path, typer.Argument(help="The file to write, a name that ends in .parquet.")],
    scenes: Annotated[int, typer.Option(min=1, help="How many scenes are described.")] = 1000,
    seed: Annotated[int, typer.Option(help="The stream that the scenes are drawn from.")] = SEED,
) -> None:
    """Write true descriptions of scenes, as train.sft.dataset reads them."""
    if out.suffix != ".parquet":
        raise typer.BadParameter(f"{out} does not end in .parquet; call it {out.with_suffix('.parquet').name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows(scenes, seed)), schema=SCHEMA), out)
    typer.echo(f"{scenes} descriptions in {out}")


app = command(main)

if __name__ == "__main__":
    app()
