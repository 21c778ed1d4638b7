"""A commented recipe as text, from what a folder holds and what was answered about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.commands.folder_sources import FolderSource

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@-]*")


@dataclass(frozen=True)
class Answers:
    """``vocabulary`` is a built-in name or a file; None where texts are not read for objects. ``prompt`` is asked about
    images that have none of their own."""

    name: str
    model: str
    prompt: str
    vocabulary: str | None


def recipe_text(source: FolderSource, others: list[FolderSource], answers: Answers) -> str:
    """A recipe, with the groups that go on from its pairs as comments.

    >>> images = FolderSource("folder", {"path": "photos", "prompts": ["Describe the image in detail."]})
    >>> print(recipe_text(images, [], Answers("photos", "owner/vlm", "What is it?", None)).splitlines()[10])
      prompts: ["What is it?"]
    """
    given = source.kind == "pds"
    groups = [
        _HEAD.format(name=scalar(answers.name)),
        _source(source, others, answers.prompt),
        _GIVEN if given else _SAMPLE.format(model=scalar(answers.model)),
        _GIVEN_PAIRS if given else _scores(source, answers),
        _AFTER.format(model=f"#   model: {scalar(answers.model)}\n" if given else ""),
    ]
    return "\n".join(groups)


def reads_words(source: FolderSource) -> bool:
    """Whether a scorer of the recipe looks for objects in texts: answers that are known to be right, or better than
    others, are compared as they are."""
    return bool(source.kind != "pds" and (source.objects or source.regions or not source.answers))


def scalar(value: Any) -> str:
    """A value as YAML in one line.

    >>> scalar("a/b.json"), scalar("no"), scalar(["Why?"])
    ('a/b.json', '"no"', '["Why?"]')
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _source(source: FolderSource, others: list[FolderSource], prompt: str) -> str:
    options = {**source.options, **({"prompts": [prompt]} if "prompts" in source.options else {})}
    lines = ["# Images and prompts (docs/sources.md).", "source:", f"  kind: {source.kind}"]
    lines += [f"  {key}: {scalar(value)}" for key, value in options.items()]
    if source.kind == "coco":
        lines.append(f"  prompts: {scalar([prompt])}")
    if source.kind == "llava":
        lines.append("  # use_answers: true     # the answer to a question becomes the truth that correctness asks for")
    if source.kind == "webdataset":
        lines.append("  # Without prompts, KEY.txt beside an image is its prompt.")
    lines += [f"  # There is also {other.title}" for other in others]
    return "\n".join([*lines, "  # limit: 1000            # prompts after which reading ends: a small run first", ""])


def _scores(source: FolderSource, answers: Answers) -> str:
    """What can be known of the answers: by facts, by right answers, or else by the model itself."""
    scorers: list[str] = []
    groups: list[str] = []
    weights: list[str] = []
    if source.objects:
        scorers, groups = ["objects"], [f"  objects: {{vocabulary: {scalar(answers.vocabulary)}}}"]
        weights = ["    objects.covered: 1.0        # an object that is there and is named",
                   "    objects.hallucinated: -1.0  # one that is named and is not there"]  # fmt: skip
    elif source.regions:
        scorers, groups = ["facts"], [f"  facts: {{vocabulary: {scalar(answers.vocabulary)}}}"]
        weights = ["    facts.right: 0.25", "    facts.wrong: -1.0"]
    if source.answers:
        scorers.append("correctness")
        weights.append("    correctness: 1.0            # whether it is the right answer")
    margin, about = "0.5", "the facts that come with the images"
    if not scorers:
        scorers, margin, about = ["claims"], "0.1", "the model itself, as in RLAIF-V: is each claim of a text true?"
        words = answers.vocabulary
        asks = [f"    vocabulary: {scalar(words)}", '    template: "Is there {claim} in the image? Answer yes or no."',
                '    template_many: "Are there {claim} in the image? Answer yes or no."']  # fmt: skip
        groups = ["  claims:", f"    model: {scalar(answers.model)}", *(asks if words else [])]
        groups.append("  # Better than that are a detector's findings: scorers: [objects], objects: {detections: FILE}")
        weights = ["    claims.true: 1.0            # the mean of P(yes)"]
    names = ", ".join(scorers)
    head = [f"# What an answer is worth, by {about} (docs/rewards.md).", "score:", f"  scorers: [{names}]", *groups, ""]
    return "\n".join([*head, _PAIR.format(weights="\n".join(weights), margin=margin)])


_HEAD = """\
# Written by `vlm-preference init`. Every key: docs/configuration.md. Paths are relative to where the command runs.
#   vlm-preference plan THIS_FILE                what would run
#   vlm-preference run THIS_FILE --preview 5     the pairs of five prompts
#   vlm-preference run THIS_FILE                 everything; a killed run continues
name: {name}
"""
_SAMPLE = """\
# The model that is to become better answers (docs/engines.md).
sample:
  model: {model}
  n: 8                          # answers to a prompt
  temperature: 1.0
  max_tokens: 256               # answers that are cut here are no data
  # max_image_pixels: 1000000   # larger images are scaled down for the model
  # engine: {{kind: openai, base_url: "http://localhost:8000/v1"}}   # a server in place of vLLM here
"""
_PAIR = """\
# The best answer to a prompt against the worst, where they are margin apart (docs/pairing.md).
pair:
  weights:
{weights}
  margin: {margin}
  max_length_ratio: 2.0         # texts of a pair are about as long
"""
_GIVEN = """\
# The two answers that come with every prompt; add a model's own with `models:` (docs/exports.md).
sample: {engine: {kind: given}}
"""
_GIVEN_PAIRS = """\
# 1 for the preferred answer, 0 for the other (docs/rewards.md).
score:
  scorers: [given]

pair:
  weights: {given: 1.0}
  margin: 0.5
"""
_AFTER = """\
# What goes on from the pairs: take the `# ` away from what you want.

# Training on them (docs/training.md).
# train:
{model}#   objective: mdpo
#   tuning: lora
#   dtype: bfloat16
#   gradient_checkpointing: true

# Benchmarks before and after training; data is the folder of their files (docs/evaluation.md).
# evaluate:
#   kind: benchmarks
#   suites: [pope, chair]
#   data: benchmarks

# What the dataset's card says; images go along (docs/publishing.md).
# publish:
#   license: cc-by-4.0          # of the images and texts
#   authors: [Your name]
#   tags: [hallucination]
"""
