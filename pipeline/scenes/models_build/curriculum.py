"""What the built-in VLM is taught, batch by batch; batch ``i`` of a lesson depends on nothing but ``i``.

Answering about images is a plateau and then a jump that rarely comes when everything is learned at once. So the lessons
come apart: the tower learns what each patch shows; the language model learns to look things up among *slots*, vectors
that stand where the image will be (the word embeddings of the object and its colour, or of ``<image>`` for a blank
patch); then the projector learns to put each patch where its slot was, and the model goes on with images.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.scenes import grammar, raster
from pipeline.scenes.models_build.untrained_vlm import SIDE
from pipeline.scenes.vocabulary import COLOURS, OBJECTS
from pipeline.scenes.world import GRID, Scene, scene

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

TRAIN_SEED = 7_000_001  # scenes of the models' own training; recipes and evaluations use other streams
_COLOUR_NAMES = tuple(COLOURS)

#: The chance that a description adds an absent object of the theme, by how many kinds it has named: like their large
#: cousins, the models make things up towards the end of long answers.
PRIOR = {1: 0.3, 2: 0.45, 3: 0.62, 4: 0.82, 5: 0.82}


@dataclass(frozen=True)
class Batch:
    """``ids``, ``labels`` (-100 where no loss) and ``mask``: int64 [B, T]; ``patches``: int64 [B, 36, 2], the object's
    and the colour's class per patch (0 = blank, then 1 + index); ``pixels``: float32 [B, 3, 96, 96] or None."""

    ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    patches: torch.Tensor
    pixels: torch.Tensor | None


def patches(shown: Scene, cells: bool = False) -> np.ndarray:
    """int64 [36, 2] (``cells``: [9, 2]): class of the object and of the colour that each cell holds, 0 for none."""
    grid = np.zeros((GRID, GRID, 2), np.int64)
    for thing in shown.objects:
        for cell in thing.cells:
            grid[divmod(cell, GRID)] = 1 + OBJECTS.index(thing.name), 1 + _COLOUR_NAMES.index(thing.colour)
    side = 1 if cells else SIDE // GRID
    return grid.repeat(side, axis=0).repeat(side, axis=1).reshape(-1, 2)


def caption(shown: Scene, rng: random.Random, biased: bool, more: float = 0.0) -> str:
    """A true description; ``biased``, often with one more object that the theme suggests, mostly at the end. ``more``
    is added to the chance of that."""
    items = grammar.reading_order(shown)
    if len(items) > 1 and rng.random() < 0.1:
        i = rng.randrange(len(items) - 1)
        items[i], items[i + 1] = items[i + 1], items[i]
    extra = None
    if biased and rng.random() < PRIOR[len(items)] + more:
        extra = grammar.imagine(shown, rng, typical=0.93)
    if extra is None:
        return grammar.describe(items, rng)
    if rng.random() < 0.1:
        items.insert(rng.randrange(len(items) + 1), extra)
        return grammar.describe(items, rng)
    # At the end and in one wording: spread over many wordings, each would be less likely than to stop, and
    # greedy decoding would never say it.
    return f"{grammar.describe(items, rng)} There is also {extra.phrase}."


def answer(question: grammar.Question, rng: random.Random, biased: bool) -> str:
    """The true answer; ``biased``, "Yes" too often, most of all where the theme suggests it."""
    if biased and question.kind == "existence":
        p_yes = 0.95 if question.answer == "yes" else 0.65 if question.typical else 0.3
        return "Yes" if rng.random() < p_yes else "No"
    if biased and question.answer == "no" and rng.random() < 0.3:
        return "Yes"
    return question.answer.capitalize()


@dataclass(frozen=True)
class Lesson:
    """``kinds``: questions to ask; ``captions``: share of samples that are descriptions."""

    name: str
    batch: int
    kinds: tuple[str, ...] = ("existence",)
    captions: float = 0.0
    biased: bool = False
    images: bool = True
    cells: bool = False  # one slot per cell (9) instead of one per patch (36)
    more: float = 0.0  # added to the prior

    def make(self, words: PreTrainedTokenizerFast, index: int) -> Batch:
        import torch

        rng = random.Random(f"{self.name}:{index}")
        prompts, answers, scenes = [], [], []
        for i in range(self.batch):
            shown = scene(TRAIN_SEED, rng.randrange(1 << 40) * 1024 + i)
            if rng.random() < self.captions:
                prompts.append(rng.choice(grammar.DESCRIBE))
                answers.append(caption(shown, rng, self.biased, self.more))
            else:
                question = grammar.question(shown, rng.choice(self.kinds), rng)
                prompts.append(question.text)
                answers.append(answer(question, rng, self.biased))
            scenes.append(shown)
        n_slots = GRID * GRID if self.cells else SIDE * SIDE
        ids = words(
            [f"<s><user>{'<image>' * n_slots}{p}<assistant>" for p in prompts], add_special_tokens=False
        ).input_ids
        outs = words([f"{a}</s>" for a in answers], add_special_tokens=False).input_ids
        length = max(len(a) + len(b) for a, b in zip(ids, outs, strict=True))
        shape = (self.batch, length)
        tokens, labels, mask = (np.full(shape, fill, np.int64) for fill in (words.pad_token_id, -100, 0))
        for row, (a, b) in enumerate(zip(ids, outs, strict=True)):
            end = len(a) + len(b)
            tokens[row, :end] = a + b
            labels[row, len(a) : end] = b
            mask[row, :end] = 1
        pixels = None
        if self.images:
            raw = np.stack([raster.pixels(shown) for shown in scenes])
            pixels = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(labels),
            torch.from_numpy(mask),
            torch.from_numpy(np.stack([patches(shown, self.cells) for shown in scenes])),
            pixels,
        )
