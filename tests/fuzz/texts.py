"""Recipes, overrides, detections, vocabularies, and what judges and servers say: read, or refused in one short line."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mutate
import yaml
from PIL import Image

from pipeline.base import yaml_file as read
from pipeline.base.config import flatten
from pipeline.base.errors import UserError
from pipeline.base.images import pixels
from pipeline.engines import protocol as engines
from pipeline.engines.chat_completions import NoData, NotContinued, completions
from pipeline.engines.protocol import Completion, Request, Response
from pipeline.recipe.load import RECIPES, load_recipe
from pipeline.rewriting import corrector, sentence_judge
from pipeline.scoring import scorers
from reward.asking.claims import p_yes, read_claims
from reward.asking.judge import read_score, read_verdict
from reward.asking.protocol import Answer
from reward.scorers.detections import Detections
from reward.text import yes_no
from reward.text.sentences import split
from reward.text.types import Finding, Problem
from training.config import load_config
from training.evaluation.benchmarks.object_halbench import objects_in

NAMES = tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))
TEXT = "A dog sits on a chair. A cat sleeps beside it."
REQUEST = Request("r", (), (("user", "What?"),), 1)
TRAIN = {
    "model": "m", "dataset": "d", "output_dir": "o", "lora": {"r": 8, "alpha": 16}, "loss_type": ["sigmoid"],
    "learning_rate": 1e-5, "corruption": {"kind": "crop", "keep_area": [0.1, 0.2]}, "seed": 1, "sft": {"dataset": "x"},
}  # fmt: skip


def recipe(rng: random.Random, folder: Path) -> str:
    values = yaml.safe_load((RECIPES / f"{rng.choice(NAMES)}.yaml").read_text(encoding="utf-8"))
    path = folder / "a.yaml"
    path.write_bytes(_yaml(values, rng))
    load_recipe(path)
    return "accepted"


def training(rng: random.Random, folder: Path) -> str:
    path = folder / "a.yaml"
    path.write_bytes(_yaml(TRAIN, rng))
    load_config(path)
    return "accepted"


def overrides(rng: random.Random, folder: Path) -> str:
    name = rng.choice(NAMES)
    keys = list(flatten(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))))
    settings = []
    for _ in range(rng.choice((1, 1, 2, 5))):
        key = rng.choice(keys)
        if rng.random() < 0.3:
            key = rng.choice((key[:-1], f"{key}.x", key.upper(), f"{key}..", "", mutate.HALF, key.partition(".")[0]))
        value: Any = rng.choice(mutate.ODD)
        text = value if isinstance(value, str) else json.dumps(value)
        settings.append(f"{key}{rng.choice(('=', '=', '=', '==', ' = ', ''))}{text}")
    load_recipe(name, settings)
    return "accepted"


def detections(rng: random.Random, folder: Path) -> str:
    listed = [{"image": "a.jpg", "detections": [{"label": "dog", "score": 0.9, "box": [0, 0, 1, 1]}]}] * 2
    keyed = {"a.jpg": listed[0]["detections"], "b.jpg": []}
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1, "score": 0.5}],
    }
    path = folder / "a.json"
    path.write_bytes(mutate.written(mutate.structure(rng.choice((listed, keyed, coco)), rng), rng))
    try:
        opened = Detections.read(path)
        opened.labels_of(b"x", "a.jpg")
    except ValueError as error:
        return _named(error, path)
    return "accepted"


def vocabulary(rng: random.Random, folder: Path) -> str:
    path = folder / "a.json"
    path.write_bytes(mutate.written(mutate.structure({"dog": "dog", "dogs": "dog", "hot dog": "hot dog"}, rng), rng))
    scorers.vocabulary(str(path)).mentions(TEXT)
    return "accepted"


def verdicts(rng: random.Random, folder: Path) -> str:
    """What a judge says is read, or is unreadable; it never is an error, for other rows wait."""
    fix = [{"sentence": 1, "correction": "A dog sits."}, {"sentence": 2, "correction": None}]
    findings = [{"sentence": 1, "verdict": "hallucination", "kind": "object", "words": "chair", "reason": "none"}]
    lines = "\n".join(mutate.text(mutate.structure(line, rng)).decode() for line in [*fix, *findings])
    reply = rng.choice(("Score: 7", "Verdict: A", "yes", '["dog", "cat"]', "```json\n[]\n```", lines, lines))
    if rng.random() < 0.7:
        reply = mutate.data(reply.encode("utf-8", "replace"), rng).decode("utf-8", "surrogateescape")
    assert read_score(reply) in (None, *range(1, 11)) and read_verdict(reply) in (None, "A", "B", "tie")
    told = [parser(reply) for parser in (yes_no.official, yes_no.lmms_eval, yes_no.vlmevalkit)]
    assert {*told} <= {"yes", "no", None}
    values = [read_score(reply), read_verdict(reply), read_claims(reply), objects_in(reply)]
    first = [(reply[:4], rng.choice((-1.0, 0.0, float("-inf"), float("nan"), -1e308))), ("yes", -0.1), ("no", -3.0)]
    chance = p_yes(first)
    assert chance is None or 0 <= chance <= 1
    sentences = split(TEXT)
    bad = Finding(0, sentences[0].start, sentences[0].end, "hallucination", "object", "chair", "none", "judge")
    values += [sentence_judge.read(reply, sentences), corrector.read(Answer(reply), TEXT, [bad])]
    return "accepted" if any(value is not None and not isinstance(value, Problem) for value in values) else "failed row"


def replies(rng: random.Random, folder: Path) -> str:
    """What a server sends is answers that a table can hold, or an error of this row."""
    from openai._models import construct_type
    from openai.types.chat import ChatCompletion

    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -2.0}]
    token = {"token": "Yes", "logprob": -0.1, "top_logprobs": top}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Yes, a dog."},
        "finish_reason": "stop",
        "logprobs": {"content": [token, token]},
    }
    usage = {"completion_tokens": 4, "prompt_tokens": 1, "total_tokens": 5}
    base = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    sent = mutate.written(mutate.structure(base, rng), rng)
    try:
        value = json.loads(sent)
    except (ValueError, RecursionError):  # as `openai` finds it, and `OpenAIEngine._send` says
        return "failed row"
    reply = construct_type(type_=ChatCompletion, value=value)
    try:
        answers = completions(reply, REQUEST)
    except (NoData, NotContinued) as error:
        assert len(str(error)) < 20_000
        return "failed row"
    (response,) = engines.ask(_Said(answers), [REQUEST], engines.Sampling(n=len(answers)))
    for completion in response.completions:
        completion.text.encode()
        assert completion.n_tokens is None or 0 <= completion.n_tokens < 2**31
    return "accepted" if response.error_type is None else "failed row"


class _Said:
    def __init__(self, answers: list[Completion]) -> None:
        self._found = answers

    def generate(self, requests: Any, sampling: Any) -> Any:
        return [Response(requests[0].id, tuple(self._found))]


def pictures(rng: random.Random, folder: Path) -> str:
    """Bytes become pixels, or a named reason."""
    buffer = io.BytesIO()
    mode = rng.choice(("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK", "LA", "F"))
    kind = rng.choice(("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"))
    try:
        Image.new(mode, (rng.randrange(1, 40), rng.randrange(1, 40))).save(buffer, kind)
    except (OSError, ValueError, KeyError):  # not every format has every mode
        Image.new("RGB", (8, 8)).save(buffer, kind)
    try:
        image = pixels.decode(mutate.data(buffer.getvalue(), rng), 1 << 20, 1 << 20)
    except pixels.BadImage as error:
        assert error.kind and 0 < len(error.reason) < 1000
        return "failed row"
    assert image.mode == "RGB" and image.getpixel((0, 0))
    return "accepted"


def _yaml(values: Mapping[str, Any], rng: random.Random) -> bytes:
    odd = mutate.structure(values, rng)
    try:
        plain = yaml.safe_dump(odd, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        plain = mutate.text(odd)
    if rng.random() < 0.1:  # what is written once and used a thousand times
        plain += b"\nz0: &z0 [a, a, a, a]\n" + b"".join(
            b"z%d: &z%d [*z%d, *z%d, *z%d, *z%d]\n" % (i, i, i - 1, i - 1, i - 1, i - 1) for i in range(1, 14)
        )
    return mutate.data(plain, rng) if rng.random() < 0.3 else plain


def _named(error: Exception, path: Path) -> str:
    assert len(str(error)) <= 2000 and path.name in str(error), str(error)[:300]
    return "named error"


def small(error: UserError) -> bool:
    """Whether an error is as short as promised. What is refused for its YAML shows none of it."""
    return len(str(error)) <= 2000 and "\x1b" not in read.name(str(error).splitlines()[0])
