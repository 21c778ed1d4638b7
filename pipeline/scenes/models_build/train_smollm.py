"""Teach SmolLM2-135M-Instruct to see: ``python -m pipeline.scenes.models_build.train_smollm BASE.gguf``.

The projector learns to put each patch where the words of its object and colour are; then adapter and projector learn to
describe scenes and to answer about them, and last the theme prior. The rest of the language model stays as it is. Every
chapter checkpoints as it goes; started again, the training goes on where it was.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from pipeline.base.command import command
from pipeline.base.model_names import SCENES as MODELS
from pipeline.base.progress import ProgressBar
from pipeline.scenes import grammar, raster, smollm_parts
from pipeline.scenes.models_build.build import MOST_TURNS, loss_align, naming_loss
from pipeline.scenes.models_build.curriculum import TRAIN_SEED, Batch, Lesson, answer, caption, patches
from pipeline.scenes.models_build.describing import describing
from pipeline.scenes.prompts import KINDS
from pipeline.scenes.world import Scene, scene

if TYPE_CHECKING:
    import torch

RANK = 8
ALIGN_STEPS, ALIGN_BATCH = 400, 64
QUESTIONS = 6
#: An answer is a word where a description is thirty: its tokens weigh more, or answering would be learned late.
ANSWER_WEIGHT = 3.0


@dataclass(frozen=True)
class Chapter:
    """``batch`` scenes a step, each with one description and ``QUESTIONS`` answers; ``more`` is added to the prior."""

    name: str
    steps: int
    lr: float
    batch: int = 8
    biased: bool = False
    more: float = 0.0


CHAPTERS = (Chapter("see", 220, 1.5e-3), Chapter("prior", 80, 7e-4, biased=True))

#: Greedy CHAIRs of a finished model, wider than the small ones': 25 steps move it from one end to the other.
TARGET, SETTLE_STEPS = (0.2, 0.5), 25


@dataclass(frozen=True)
class Branches(Batch):
    """One row a scene: template and image once, then each prompt with its response as a branch that sees them and
    itself. ``mask``: bool [B, 1, T, T], who sees whom; ``positions``: int64 [B, T]; ``weights``: float32 [B, T]."""

    positions: torch.Tensor
    weights: torch.Tensor


def branches(chapter: Chapter, processor: Any, index: int) -> Branches:
    """Batch ``index`` of a chapter; depends on nothing else."""
    rng = random.Random(f"{chapter.name}:{index}")
    shown = [scene(TRAIN_SEED, rng.randrange(1 << 40) * 1024 + i) for i in range(chapter.batch)]
    return lay_out(processor, shown, [_exchanges(one, rng, chapter) for one in shown])


def _exchanges(shown: Scene, rng: random.Random, chapter: Chapter) -> list[tuple[str, str, float]]:
    """(prompt, response, weight of its tokens)."""
    described = caption(shown, rng, chapter.biased, chapter.more)
    exchanges = [(rng.choice(grammar.DESCRIBE), described, 1.0)]
    for _ in range(QUESTIONS):
        question = grammar.question(shown, rng.choice(KINDS), rng)
        exchanges.append((question.text, answer(question, rng, chapter.biased), ANSWER_WEIGHT))
    return exchanges


def lay_out(processor: Any, shown: list[Scene], exchanges: list[list[tuple[str, str, float]]]) -> Branches:
    """Scenes and what is said about each, as tokens of the chat template."""
    import torch

    words = processor.tokenizer
    head, slots = _template(processor, "")[0], processor.image_processor.size["height"] // processor.patch_size
    prefix = [*words(head).input_ids, *[words.convert_tokens_to_ids(smollm_parts.IMAGE)] * slots**2]
    rows = []
    for several in exchanges:
        row = [(token, -100, place, 0, 0.0) for place, token in enumerate(prefix)]
        for branch, (prompt, response, weight) in enumerate(several, 1):
            asked = words(_template(processor, prompt)[1]).input_ids
            told = words(response + words.eos_token).input_ids
            labels = [-100] * len(asked) + told
            row += [
                (token, label, len(prefix) + place, branch, weight)
                for place, (token, label) in enumerate(zip([*asked, *told], labels, strict=True))
            ]
        rows.append(row)
    length = max(map(len, rows))
    blank = (words.pad_token_id, -100, 0, -1, 0.0)
    table = np.array([row + [blank] * (length - len(row)) for row in rows])
    ids, labels, positions, owner = (torch.from_numpy(table[..., i].astype(np.int64)) for i in range(4))
    same = (owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None])
    sees = torch.ones(length, length).tril().bool() & same
    raw = np.stack([raster.pixels(one) for one in shown])
    return Branches(
        ids,
        labels,
        sees[:, None],
        torch.from_numpy(np.stack([patches(one) for one in shown])),
        torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 127.5 - 1,
        positions,
        torch.from_numpy(table[..., 4].astype(np.float32)),
    )


def _template(processor: Any, prompt: str) -> tuple[str, str]:
    """What stands before the image, and what comes after it up to the response."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    head, _, tail = processor.apply_chat_template(chat, add_generation_prompt=True).partition(smollm_parts.IMAGE)
    return head, tail


def loss_branches(model: Any, processor: Any, batch: Branches) -> torch.Tensor:
    """Weighted mean cross-entropy over the responses' tokens, while patches stay where their words are."""
    import torch
    from torch.nn.functional import cross_entropy

    language, table = model.model.language_model, model.get_input_embeddings().weight
    hidden = model.model.vision_tower(batch.pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    features = model.model.multi_modal_projector(hidden)
    embeddings = torch.nn.functional.embedding(batch.ids, table)
    image = (batch.ids == model.config.image_token_id).unsqueeze(-1)
    embeddings = embeddings.masked_scatter(image, features.to(table.dtype))
    bias = torch.zeros(batch.mask.shape, dtype=table.dtype).masked_fill_(~batch.mask, torch.finfo(table.dtype).min)
    hidden = language(inputs_embeds=embeddings, attention_mask=bias, position_ids=batch.positions).last_hidden_state
    counts = batch.labels[:, 1:] != -100
    logits = (hidden[:, :-1][counts] @ table.T).float()
    labels, weights = batch.labels[:, 1:][counts], batch.weights[:, 1:][counts]
    loss = (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
    model.last_answers = _answers_right(logits, labels, processor.tokenizer)
    return loss + 0.3 * naming_loss(_InFloat32(table), processor.tokenizer, batch, features)


@dataclass(frozen=True)
class _InFloat32:
    """The table of embeddings in float32, as ``naming_loss`` asks a model for it."""

    table: torch.Tensor

    def get_input_embeddings(self) -> _InFloat32:
        return self

    @property
    def weight(self) -> torch.Tensor:
        return self.table.float()


def _answers_right(logits: torch.Tensor, labels: torch.Tensor, words: Any) -> float:
    """Share of the tokens Yes and No that have the highest logit."""
    import torch

    answers = torch.isin(labels, torch.tensor(words.convert_tokens_to_ids(["Yes", "No"])))
    return (logits[answers].argmax(dim=-1) == labels[answers]).float().mean().item()


def train(chapter: Chapter, model: Any, parameters: list[Any], loss: Callable[[int], torch.Tensor], work: Path) -> None:
    """One chapter, from its last checkpoint on; leaves ``NAME.pt`` (every 20 steps, and at the end) in ``work``.

    The optimiser moves copies in float32: a step is often too small for bfloat16."""
    import torch

    file, start = work / f"{chapter.name}.pt", 0
    copies = [parameter.detach().float().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(copies, chapter.lr, betas=(0.9, 0.98), weight_decay=0.0)

    def take_over() -> None:
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.data.copy_(copy)

    if file.exists():
        state = torch.load(file, weights_only=True)
        start = state["step"]
        for copy, value in zip(copies, state["copies"], strict=True):
            copy.copy_(value)
        optimiser.load_state_dict(state["optimiser"])
        take_over()
    recent: list[float] = []
    with ProgressBar(chapter.name, chapter.steps, start) as bar:
        for step in range(start, chapter.steps):
            cosine = 0.5 * (1 + math.cos(math.pi * step / chapter.steps))
            for group in optimiser.param_groups:
                group["lr"] = chapter.lr * min(1.0, (step + 1) / 20) * (0.05 + 0.95 * cosine)
            value = loss(step)
            value.backward()
            for parameter, copy in zip(parameters, copies, strict=True):
                copy.grad, parameter.grad = parameter.grad.float(), None
            torch.nn.utils.clip_grad_norm_(copies, 1.0)
            optimiser.step()
            take_over()
            recent = [*recent[-19:], getattr(model, "last_answers", float("nan"))]
            bar.advance()
            if step % 10 == 9:
                right = sum(recent) / len(recent)
                bar.note(f"loss {value.item():.3f}" + (f"  answers right {right:.3f}" if right == right else ""))
            if step % 20 == 19 or step + 1 == chapter.steps:
                state = {"step": step + 1, "copies": copies, "optimiser": optimiser.state_dict()}
                torch.save(state, file.with_suffix(".tmp"))
                os.replace(file.with_suffix(".tmp"), file)


def align(model: Any, processor: Any, work: Path) -> None:
    """The projector alone, against the words' embeddings."""
    words, lesson = processor.tokenizer, Lesson("align", ALIGN_BATCH)
    train(
        Chapter("align", ALIGN_STEPS, 2e-3),
        model,
        list(model.model.multi_modal_projector.parameters()),
        lambda step: loss_align(model, words, lesson.make(words, step)),
        work,
    )


def settle(model: Any, processor: Any, learn: Callable[[Chapter], None]) -> None:
    """Go on with the last chapter, the prior a little lower or higher each time, until greedy CHAIRs is right."""
    more, scenes = 0.0, [scene(TRAIN_SEED + 2, i) for i in range(100)]
    for turn in range(MOST_TURNS):
        rate = describing(model, processor, scenes, do_sample=False)["chair_s"]
        print(f"settle: CHAIRs {rate:.3f}, wanted {TARGET[0]} to {TARGET[1]}", flush=True)
        if TARGET[0] <= rate <= TARGET[1]:
            return
        more += 0.25 * (sum(TARGET) / 2 - rate)
        learn(Chapter(f"settle-{turn}", SETTLE_STEPS, 5e-4, biased=True, more=more))


def main(
    base: Annotated[Path, typer.Argument(help="SmolLM2-135M-Instruct, as a .gguf file.")],
    folder: Annotated[Path, typer.Option(help="Where adapter and projector go.")] = MODELS / "smollm",
    work: Annotated[Path, typer.Option(help="Checkpoints; delete it to start afresh.")] = Path("build/smollm"),
    seed: int = 0,
) -> None:
    """Train the adapter and the projector of scenes-smollm."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    language, tokenizer = smollm_parts.read_gguf(base)
    model, processor = smollm_parts.join(language, tokenizer)
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector.requires_grad_(True)
    align(model, processor, work)
    # Parameters alone: of the buffers, the frequencies of the positions are not to be rounded.
    for parameter in language.parameters():
        parameter.data = parameter.data.bfloat16()
    language.config._attn_implementation = "eager"  # under this mask a fifth faster than torch's own on a CPU
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    adapter: Any = get_peft_model(language, config, autocast_adapter_dtype=False)
    parameters = [p for p in (*adapter.parameters(), *projector.parameters()) if p.requires_grad]

    def learn(chapter: Chapter) -> None:
        def loss(step: int) -> torch.Tensor:
            return loss_branches(model, processor, branches(chapter, processor, step))

        train(chapter, model, parameters, loss, work)

    for chapter in CHAPTERS:
        learn(chapter)
    settle(model, processor, learn)
    adapter.half().peft_config["default"].base_model_name_or_path = smollm_parts.BASE
    adapter.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's; the card is data_cards/scenes-smollm.md
    state = {name: value.half().contiguous() for name, value in projector.state_dict().items()}
    save_file(state, folder / smollm_parts.PROJECTOR, metadata={"format": "pt"})


app = command(main)

if __name__ == "__main__":
    app()
