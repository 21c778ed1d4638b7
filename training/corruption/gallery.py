"""Draw one scene under every kind of corruption: ``python -m training.corruption.gallery OUT.png``."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw, ImageFont

from pipeline.base.command import command
from pipeline.scenes import grammar, raster
from pipeline.scenes.world import scene
from training.config.objective import Corruption
from training.corruption import corrupt, other_index

#: Scenes to choose the other image from; the first is the one that is corrupted.
_SCENES = 8
_COLUMNS = 5
_SIDE, _MARGIN, _CAPTION = 192, 8, 24

PANELS: tuple[tuple[str, Corruption], ...] = (
    ("crop (keeps 1-20 %)", Corruption()),
    ("crop (keeps 20-50 %)", Corruption(keep_area=(0.2, 0.5))),
    ("other", Corruption(kind="other")),
    ("black", Corruption(kind="black")),
    ("gaussian", Corruption(kind="gaussian")),
    ("diffusion (step 500)", Corruption(kind="diffusion")),
    ("block_mask", Corruption(kind="block_mask")),
    ("augment", Corruption(kind="augment")),
    ("clip_mask", Corruption(kind="clip_mask", clip_model="scenes-clip")),
)


def panels(seed: int) -> list[tuple[str, Image.Image]]:
    """Title and picture of the original and of every kind that needs no dataset's own rejected images."""
    shown = scene(seed, 0)
    original = Image.fromarray(raster.pixels(shown))
    text = grammar.describe(grammar.reading_order(shown), random.Random(seed))
    titled = [("original", original)]
    for title, config in PANELS:
        if config.kind == "other":
            titled.append(
                (title, Image.fromarray(raster.pixels(scene(seed, other_index(seed, "0", 0, _SCENES, row=0)))))
            )
        else:
            titled.append((title, corrupt(original, config, seed, "0", 0, text)))
    return titled


def sheet(seed: int) -> Image.Image:
    """All panels, five in a row, each under its title."""
    pictures = panels(seed)
    rows = -(-len(pictures) // _COLUMNS)
    step_x, step_y = _SIDE + _MARGIN, _SIDE + _CAPTION + _MARGIN
    page = Image.new("RGB", (_COLUMNS * step_x + _MARGIN, rows * step_y + _MARGIN), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for place, (title, picture) in enumerate(pictures):
        x, y = _MARGIN + place % _COLUMNS * step_x, _MARGIN + place // _COLUMNS * step_y
        pen.text((x, y), title, fill="black", font=font)
        page.paste(picture.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (x, y + _CAPTION))
        pen.rectangle((x - 1, y + _CAPTION - 1, x + _SIDE, y + _CAPTION + _SIDE), outline="grey")
    return page


def main(
    out: Annotated[Path, typer.Argument(help="PNG to write.")],
    seed: Annotated[int, typer.Option(help="Of the scene and of every corruption.")] = 3,
) -> None:
    """Write a sheet with one scene under every kind of corruption."""
    sheet(seed).save(out)


app = command(main)

if __name__ == "__main__":
    app()
