"""Train the built-in models from nothing: ``python -m pipeline.scenes.models_build.build``.

Every lesson checkpoints as it goes; started again, the build goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.base.command import command
from pipeline.base.model_names import SCENES as MODELS
from pipeline.base.progress import ProgressBar
from pipeline.scenes.models_build.curriculum import TRAIN_SEED, Batch, Lesson
from pipeline.scenes.vocabulary import COLOURS, OBJECTS
from pipeline.scenes.world import scene

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

ALL_KINDS = ("existence", "existence", "existence", "attribute", "count", "relation")
MOSTLY_EXISTENCE = ("existence",) * 9 + ("attribute", "count", "relation")

Loss = Callable[["LlavaForConditionalGeneration", "PreTrainedTokenizerFast", Batch], "torch.Tensor"]


@dataclass(frozen=True)
class Course:
    """A lesson, what it trains, and for how long. ``part``: tower (with projector), language, or all."""

    lesson: Lesson
    part: str
    loss: Loss
    steps: int
    lr: float
    until: float | None = None  # stop once this share of answers was right over the last 50 steps
    floor: float = 0.05  # learning rate at the end of the cosine, as a share of ``lr``


def slots(model: Any, words: PreTrainedTokenizerFast, batch: Batch) -> torch.Tensor:
    """float32 [B, S, width]: the word embeddings of each slot's object and colour, summed; ``<image>`` for none."""
    import torch

    table = model.get_input_embeddings().weight
    names = torch.tensor(words.convert_tokens_to_ids(["<image>", *("\u0120" + name for name in OBJECTS)]))
    colours = torch.tensor(words.convert_tokens_to_ids(["<image>", *("\u0120" + name for name in COLOURS)]))
    kind, colour = batch.patches.unbind(-1)
    return table[names[kind]] + table[colours[colour]] * (kind > 0).unsqueeze(-1)


def answer_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over the answers' tokens; logits [B, T, V]."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)


def loss_tower(model: Any, words: Any, batch: Batch) -> torch.Tensor:
    """What each patch shows, read by a linear head from the projector's output."""
    from torch.nn.functional import cross_entropy

    features = _project(model, batch.pixels)
    kinds = model.patch_head(features).flatten(0, 1).split([1 + len(OBJECTS), 1 + len(COLOURS)], dim=-1)
    return sum(cross_entropy(part, batch.patches[..., i].flatten()) for i, part in enumerate(kinds))  # type: ignore[return-value]


def loss_align(model: Any, words: Any, batch: Batch) -> torch.Tensor:
    """Distance of each patch's feature from its slot, relative to the slots' variance, plus ``naming_loss``. The
    distance alone settles on the mean of all objects."""
    features = _project(model, batch.pixels)
    target = slots(model, words, batch).detach()
    return (features - target).square().mean() / target.var() + naming_loss(model, words, batch, features)


def naming_loss(model: Any, words: Any, batch: Batch, features: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of naming each patch by cosine with the words of its object and its colour; features [B, S, W]."""
    from torch.nn.functional import cross_entropy, normalize

    table = model.get_input_embeddings().weight.detach()
    loss = features.new_zeros(())
    for part, names in enumerate((OBJECTS, COLOURS)):
        vectors = table[words.convert_tokens_to_ids(["\u0120" + name for name in names])]
        vectors = normalize(vectors - vectors.mean(dim=0), dim=-1)
        classes = batch.patches[..., part]
        inked = classes > 0
        loss = loss + cross_entropy(15 * normalize(features[inked], dim=-1) @ vectors.T, classes[inked] - 1)
    return loss


def loss_slots(model: Any, words: Any, batch: Batch) -> torch.Tensor:
    """Answers and descriptions from slots instead of an image."""
    embeddings = model.get_input_embeddings()(batch.ids).clone()
    image = batch.ids == model.config.image_token_id
    embeddings[image] = slots(model, words, batch).flatten(0, 1)
    hidden = model.model.language_model(inputs_embeds=embeddings, attention_mask=batch.mask).last_hidden_state
    logits = model.lm_head(hidden)
    model.last_logits = logits.detach()
    return answer_loss(logits, batch)


def loss_images(model: Any, words: Any, batch: Batch) -> torch.Tensor:
    """Answers and descriptions from images, while patches stay where their words are."""
    features = _project(model, batch.pixels)
    embeddings = model.get_input_embeddings()(batch.ids).clone()
    embeddings[batch.ids == model.config.image_token_id] = features.flatten(0, 1)
    hidden = model.model.language_model(inputs_embeds=embeddings, attention_mask=batch.mask).last_hidden_state
    logits = model.lm_head(hidden)
    model.last_logits = logits.detach()
    return answer_loss(logits, batch) + 0.3 * naming_loss(model, words, batch, features)


def _project(model: Any, pixels: torch.Tensor | None) -> torch.Tensor:
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    return model.model.multi_modal_projector(hidden)


COURSES = (
    Course(Lesson("tower", 96), "tower", loss_tower, 900, 1e-3),
    Course(
        Lesson("lookup-cells", 256, images=False, cells=True), "language", loss_slots, 1500, 1e-3, until=0.97, floor=1.0
    ),
    Course(Lesson("lookup", 128, ALL_KINDS, 0.4, images=False), "language", loss_slots, 900, 1e-3),
    Course(Lesson("align", 96), "tower", loss_align, 800, 1e-3),
    Course(Lesson("images", 96, ALL_KINDS, 0.4), "all", loss_images, 800, 6e-4),
    Course(Lesson("see", 96, MOSTLY_EXISTENCE, 0.4), "all", loss_images, 1200, 1e-3),
    Course(Lesson("bias", 96, MOSTLY_EXISTENCE, 0.5, biased=True), "all", loss_images, 320, 5e-4),
    # The habit of going on after the last true object sits deep: the lessons before taught to stop there.
    Course(Lesson("habit", 96, MOSTLY_EXISTENCE, 0.5, biased=True), "all", loss_images, 300, 1e-3),
)

#: Models of other skill, for recipes that sample several: the lesson after which they leave the common way, and what
#: they learn instead. The strong one has never been taught the prior; the weak one has hardly been taught to look.
SKILLS: dict[str, tuple[str, Course]] = {
    "vlm-strong": ("see", Course(Lesson("strong", 96, MOSTLY_EXISTENCE, 0.6), "all", loss_images, 100, 5e-4)),
    "vlm-weak": (
        "images",
        Course(Lesson("weak", 96, ALL_KINDS, 0.5, biased=True, more=0.3), "all", loss_images, 150, 1e-3),
    ),
}

#: Greedy CHAIRs of a finished model, and how often a short lesson may be added to get there.
TARGET, MOST_TURNS = (0.32, 0.44), 10


def _parameters(model: Any, part: str) -> list[Any]:
    tower = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    tower += list(model.patch_head.parameters())
    if part == "tower":
        return tower
    language = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    return language if part == "language" else tower + language


def _accuracy(model: Any, batch: Batch) -> float:
    """Share of rows with a one-word answer whose word has the highest logit."""
    first = (batch.labels != -100).float().argmax(dim=1)
    rows = (batch.labels != -100).sum(dim=1) == 2
    if not rows.any():
        return float("nan")
    logits = model.last_logits[rows, first[rows] - 1]
    return (logits.argmax(dim=-1) == batch.labels[rows, first[rows]]).float().mean().item()


def _batches(lesson: Lesson, words: Any, start: int, stop: int) -> Iterator[Batch]:
    """Batches made in a process of their own while the last one is learned from."""
    from torch.utils.data import DataLoader

    yield from DataLoader(
        range(start, stop),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
        collate_fn=partial(lesson.make, words),
    )


def train(course: Course, model: Any, words: Any, folder: Path) -> None:
    """One course, from its last checkpoint on; leaves ``NAME.pt`` (every 100 steps, and at the end) in ``folder``."""
    import torch

    file = folder / f"{course.lesson.name}.pt"
    parameters = _parameters(model, course.part)
    optimiser = torch.optim.AdamW(parameters, course.lr, betas=(0.9, 0.98), weight_decay=0.01)

    def rate(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / course.steps)))
        return min(1.0, (step + 1) / 50) * (course.floor + (1 - course.floor) * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    start, done = 0, False
    recent: list[float] = []
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        done, start = state["done"], state["step"]
        if not done:
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
    if done:
        return

    def save(step: int, done: bool) -> None:
        state = {"model": model.state_dict(), "step": step, "done": done}
        state |= {} if done else {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)

    model.train()
    with ProgressBar(course.lesson.name, course.steps, start) as bar:
        for step, batch in enumerate(_batches(course.lesson, words, start, course.steps), start):
            loss = course.loss(model, words, batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            if course.part != "tower":
                recent = [*recent[-49:], _accuracy(model, batch)]
            accuracy = sum(recent) / len(recent) if recent else float("nan")
            bar.advance()
            if step % 50 == 49:
                bar.note(f"loss {loss.item():.3f}  answers right {accuracy:.3f}")
            if course.until is not None and len(recent) == 50 and accuracy >= course.until:
                break
            if step % 100 == 99:
                save(step + 1, done=False)
    save(course.steps, done=True)


def settle(model: Any, processor: Any, folder: Path) -> None:
    """Go on with the last lesson, the prior a little lower or higher each time, until greedy CHAIRs is in ``TARGET``.

    Greedy decoding makes a step out of the prior: a few hundredths decide whether the likelier word is one that goes on
    or the end, and two builds that differ in the last bits of their sums end up on different sides.
    """
    from pipeline.scenes.models_build.describing import describing

    more, scenes = 0.0, [scene(TRAIN_SEED + 2, i) for i in range(200)]
    for turn in range(MOST_TURNS):
        model.eval()
        rate = describing(model, processor, scenes, do_sample=False)["chair_s"]
        print(f"settle: CHAIRs {rate:.3f}, wanted {TARGET[0]} to {TARGET[1]}", flush=True)
        if TARGET[0] <= rate <= TARGET[1]:
            return
        # The further away, the longer the step.
        more += 0.25 * (sum(TARGET) / 2 - rate)
        lesson = Lesson(f"settle-{turn}", 96, MOSTLY_EXISTENCE, 0.5, biased=True, more=more)
        train(Course(lesson, "all", loss_images, 100, 5e-4), model, processor.tokenizer, folder)


def build_vlm(folder: Path, work: Path, seed: int) -> None:
    model, processor = _untaught(seed)
    work.mkdir(parents=True, exist_ok=True)
    for course in COURSES:
        train(course, model, processor.tokenizer, work)
    settle(model, processor, work)
    _save(model, processor, folder)


def build_skills(folder: Path, work: Path, seed: int) -> None:
    """The models of ``SKILLS``, from the checkpoints that ``build_vlm`` left in ``work``."""
    import torch

    for name, (after, course) in SKILLS.items():
        model, processor = _untaught(seed)
        model.load_state_dict(torch.load(work / f"{after}.pt", weights_only=True)["model"])
        train(course, model, processor.tokenizer, work)
        _save(model, processor, folder / name)


def _untaught(seed: int) -> tuple[Any, Any]:
    import torch

    from pipeline.scenes.models_build import untrained_vlm as parts

    torch.manual_seed(seed)
    processor = parts.processor()
    model: Any = parts.vlm(processor.tokenizer)
    # Reads patches in the tower's own lesson; not part of the model that is saved.
    model.patch_head = torch.nn.Linear(model.config.text_config.hidden_size, 2 + len(OBJECTS) + len(COLOURS))
    return model, processor


def _save(model: Any, processor: Any, folder: Path) -> None:
    import torch

    from pipeline.base.export import save_for_vllm

    del model.patch_head
    model.generation_config.max_new_tokens = 96
    save_for_vllm(model, processor, folder, dtype=torch.float16)


def main(
    folder: Annotated[Path, typer.Option(help="Where the models go.")] = MODELS,
    work: Annotated[Path, typer.Option(help="Checkpoints; delete it to start afresh.")] = Path("build/scenes"),
    seed: int = 0,
) -> None:
    """Train the built-in VLMs on captions and answers, most of which carry the theme prior, and the CLIP model of their
    world."""
    from pipeline.scenes.models_build import train_clip as clip

    build_vlm(folder / "vlm", work / "vlm", seed)
    build_skills(folder, work / "vlm", seed)
    clip.build(folder / "clip", folder / "vlm", work / "clip", seed)


app = command(main)

if __name__ == "__main__":
    app()
