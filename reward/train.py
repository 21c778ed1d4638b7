"""Train a reward model on preference pairs: ``python -m reward.train DATASET --model VLM --out FOLDER``.

The result is a folder for ``reward.scorers.reward_model``: a LoRA adapter, or with ``--full`` a whole model, and the
head.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.base.command import command
from pipeline.base.openmp import sharing_cpus
from pipeline.base.progress import ProgressBar
from reward.models.bradley_terry import Comparison, comparisons, loss
from reward.models.preference_pairs import Pair, read_pairs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reward.models.conversation_reader import Reader
    from reward.models.network import RewardNetwork

#: Steps between two lines of progress.
_NOTED = 50
_DIVERGED = "nothing is saved: lower lr, or look at these rows"


@dataclass(frozen=True)
class Options:
    """``batch_size`` pairs make a step, ``micro_batch_size`` of them a forward pass. ``blind``: images are not read.

    ``in_order``: the first epoch takes the pairs as they come, a curriculum; the others shuffle.
    ``held_out`` is the share of prompts, with all their pairs, that is not learnt from but measured at the end.
    """

    tuning: Literal["lora", "full"] = "lora"
    epochs: float = 1.0
    lr: float = 1e-4
    batch_size: int = 32
    micro_batch_size: int = 8
    rank: int = 16
    center: float = 0.0
    mix_images: float = 0.0
    mix_words: int = 5
    held_out: float = 0.05
    blind: bool = False
    in_order: bool = False
    half: bool = False  # save the adapter in float16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "center", "mix_images", "held_out"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is no finite number; write one")
        if min(self.epochs, self.lr, self.batch_size, self.micro_batch_size, self.rank) <= 0:
            raise ValueError("epochs, lr, batch_size, micro_batch_size and rank must be above 0")
        if not (0 <= self.mix_images <= 1 and 0 <= self.held_out < 1 and self.center >= 0):
            raise ValueError("mix_images must be in [0, 1], held_out in [0, 1) and center at least 0")
        if self.blind and self.mix_images:
            raise ValueError("mix_images teaches to look at images, which blind does not read; set one of the two")


@sharing_cpus()
def train(
    pairs: Sequence[Pair], model: str, out: Path, options: Options, base_name: str | None = None
) -> dict[str, Any]:
    """Learn from the pairs and save to ``out``; ``base_name`` is what the adapter calls its model.

    Returns the numbers that the command prints. The same pairs and options give the same weights on one machine.

    Raises:
        ValueError: the model cannot be loaded, a pair cannot be read or is too long (the message names its row),
            ``out`` holds a model of another kind, or the loss or a weight is no finite number.
    """
    import torch
    from accelerate import Accelerator
    from torch.optim.lr_scheduler import LambdaLR

    from reward.models.trainable import check_out, open_trainable, save

    check_out(out, model, options.tuning)
    torch.manual_seed(options.seed)
    learnt, held = split(pairs, options)
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    if accelerator.num_processes > 1:
        raise ValueError(f"{accelerator.num_processes} processes were started; this trainer runs in one")
    network, reader = open_trainable(model, options.blind, options.rank if options.tuning == "lora" else None)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, options.lr, betas=(0.9, 0.98), weight_decay=0.0)
    per_epoch = math.ceil(len(learnt) / options.batch_size)
    steps = max(1, round(options.epochs * per_epoch))
    warm = max(1, steps // 20)
    schedule = LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / warm) * _cosine(step / steps))
    prepared = accelerator.prepare(network)
    started, shuffled = time.monotonic(), learnt
    with ProgressBar("reward", steps) as bar:
        for step in range(steps):
            epoch, place = divmod(step, per_epoch)
            shuffled = order(learnt, epoch, options.seed, options.in_order) if place == 0 else shuffled
            places = shuffled[place * options.batch_size :][: options.batch_size]
            todo = comparisons(pairs, places, options.mix_images, options.mix_words, options.seed, epoch)
            total, right = 0.0, 0
            for part in _parts(todo, options.micro_batch_size):
                better, worse = _rewards(prepared, reader, part, accelerator.device)
                margin = torch.tensor([comparison.margin for comparison in part], device=better.device)
                summed = loss(better, worse, margin, options.center).sum()
                if not math.isfinite(summed.item()):
                    rows = ", ".join(str(comparison.pair) for comparison in part[:8])
                    raise ValueError(f"step {step + 1}: the loss of rows {rows} is {summed.item()}; {_DIVERGED}")
                accelerator.backward(summed / len(todo))
                total, right = total + summed.item(), right + int((better > worse).sum())
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            bar.advance()
            if bar.done % _NOTED == 0 or bar.done == steps:
                bar.note(f"loss {total / len(todo):.3f}  right {right / len(todo):.3f}")
    seconds = time.monotonic() - started
    if not all(bool(parameter.isfinite().all()) for parameter in parameters):
        raise ValueError(f"the last of {steps} steps made weights that are no finite numbers; {_DIVERGED}")
    save(network, reader, out, base_name or model, options.blind, options.half)
    return {
        "pairs": len(learnt),
        "steps": steps,
        "seconds": round(seconds, 1),
        **measure(network, reader, pairs, held, options, accelerator.device),
    }


def split(pairs: Sequence[Pair], options: Options) -> tuple[list[int], list[int]]:
    """Places that are learnt from and that are held out; all pairs of a prompt fall on the same side."""

    def draw(pair: Pair) -> float:
        digest = hashlib.sha256(json.dumps(pair.prompt).encode())
        for image in pair.images:
            digest.update(image)
        return random.Random(f"{options.seed}:{digest.hexdigest()}").random()

    held = [place for place, pair in enumerate(pairs) if draw(pair) < options.held_out]
    taken = set(held)
    learnt = [place for place in range(len(pairs)) if place not in taken]
    if not learnt:
        raise ValueError("no pair is left to learn from; lower held_out or give more pairs")
    return learnt, held


def order(places: Sequence[int], epoch: int, seed: int, in_order: bool = False) -> list[int]:
    """The places as they come in epoch ``epoch``."""
    shuffled = list(places)
    if in_order and epoch == 0:
        return shuffled
    random.Random(f"order:{seed}:{epoch}").shuffle(shuffled)
    return shuffled


def measure(
    network: RewardNetwork, reader: Reader, pairs: Sequence[Pair], held: Sequence[int], options: Options, device: Any
) -> dict[str, Any]:
    """How many held-out pairs the network orders right; a tie counts a half. None where nothing was held out."""
    import torch

    todo = comparisons(pairs, held, 0.0, 0, options.seed, 0)
    right = 0.0
    with torch.inference_mode():
        for part in _parts(todo, options.micro_batch_size):
            better, worse = _rewards(network.eval(), reader, part, device)
            right += float((better > worse).sum() + 0.5 * (better == worse).sum())
    return {"held_out": len(held), "held_out_accuracy": right / len(held) if held else None}


def _rewards(network: Any, reader: Reader, part: Sequence[Comparison], device: torch.device) -> tuple[Tensor, Tensor]:
    import torch

    from reward.models.backend import batches, run
    from reward.models.conversation import BadConversation

    conversations = [side for comparison in part for side in (comparison.better, comparison.worse)]
    by_place: dict[int, Tensor] = {}
    try:
        for batch in batches(conversations, len(conversations)):
            by_place |= run(network, reader, conversations, batch, device)
    except BadConversation as error:
        raise ValueError(f"row {part[error.index // 2].pair}: {error.reason}; correct or drop the row") from error
    for i in range(len(conversations)):
        if i not in by_place:
            raise ValueError(
                f"row {part[i // 2].pair}: has more tokens than the model's {reader.positions} positions; drop the row"
            )
    rewards = torch.stack([by_place[i] for i in range(len(conversations))])
    return rewards[0::2], rewards[1::2]


def _cosine(done: float) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _parts(items: Sequence[Comparison], size: int) -> Iterator[Sequence[Comparison]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def main(
    dataset: Annotated[str, typer.Argument(help="Folder, file or name with images, prompt, chosen, rejected.")],
    model: Annotated[str, typer.Option(help="Backbone: folder or hub id of a (vision-)language model.")],
    out: Annotated[Path, typer.Option(help="Folder for the reward model.")],
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    margin: Annotated[str | None, typer.Option(help="Column with the margin of each pair.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train every weight, not a LoRA adapter.")] = False,
    epochs: float = Options.epochs,
    lr: float = Options.lr,
    batch_size: Annotated[int, typer.Option(help="Pairs per step.")] = Options.batch_size,
    micro_batch_size: Annotated[int, typer.Option(help="Pairs per forward pass.")] = Options.micro_batch_size,
    rank: Annotated[int, typer.Option(help="Of the adapter.")] = Options.rank,
    center: Annotated[float, typer.Option(help="Weight of (chosen + rejected)^2.")] = Options.center,
    mix_images: Annotated[
        float, typer.Option(help="Chance per pair of (image, chosen) over (another image, chosen).")
    ] = Options.mix_images,
    held_out: Annotated[float, typer.Option(help="Share of prompts to measure on.")] = Options.held_out,
    blind: Annotated[bool, typer.Option("--blind", help="Read no images.")] = False,
    seed: int = 0,
    image_root: Annotated[
        str | None,
        typer.Option(help="What image paths are relative to and may not leave; default: the dataset's folder."),
    ] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Follow http(s) addresses in rows.")] = False,
) -> None:
    """Train a Bradley-Terry reward model that looks at the image."""
    options = Options(
        tuning="full" if full else "lora",
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        rank=rank,
        center=center,
        mix_images=mix_images,
        held_out=held_out,
        blind=blind,
        seed=seed,
    )
    pairs = read_pairs(dataset, split, margin, image_root, allow_http)
    typer.echo(json.dumps(train(pairs, model, out, options)))


app = command(main, named=(ValueError,))

if __name__ == "__main__":
    app()
