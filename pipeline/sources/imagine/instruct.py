"""What to ask about the images that were kept: from templates, by a model, or from what was drawn."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import seeds
from pipeline.base.tables import INSTRUCTIONS, OK, error_status, stage_table
from pipeline.engines.protocol import Engine, Request, Sampling
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.requests import Requests, failure
from pipeline.sampling.stage import identity_options, worker
from pipeline.sources.imagine.asks import no_question
from pipeline.sources.imagine.config import SceneQuestions, Templates, Written
from pipeline.sources.imagine.leading import leading

_ASK = (
    "Write {count} questions or requests that a user could put about the image, one on each line and nothing else. Do "
    "not say what is in the image, and do not ask why or how something is so."
)
#: What a model is told where the recipe does not say it, by what it is shown.
BUILT_IN = {
    "both": "Here is an image. It was made from the description below, and may differ from it. "
    + _ASK
    + "\n\nDescription: {text}",
    "image": _ASK,
    "text": "An image was made from the description below, and may differ from it. " + _ASK + "\n\nDescription: {text}",
}

Instruction = dict[str, Any]
#: (id of the text, index of the image).
Place = tuple[str, int]
#: "1.", "-", "Question 2:", "Q:", and several of them.
_NUMBERING = re.compile(r"^(?:\s*(?:\d+\s*[.):]|[-*\u2022]|(?:question|request|q)\s*\d*\s*[.):])\s*)+", re.IGNORECASE)


@dataclass(frozen=True)
class InstructStage:
    spec: Templates | Written | SceneQuestions
    seed: int

    name = "instruct"
    inputs = ("imagine", "rank")
    schema = INSTRUCTIONS

    @property
    def version(self) -> int:
        # Since 2, what a model wrote that asks nothing is not asked.
        return 2 if isinstance(self.spec, Written) else 1

    @property
    def worker(self) -> WorkerSpec | None:
        return worker(self.spec.ask()) if isinstance(self.spec, Written) else None

    def options(self) -> dict[str, Any]:
        recorded = self.spec.result_options()
        if not isinstance(self.spec, Written):
            return {"seed": self.seed, **recorded}
        identity = identity_options(self.spec.ask(), self.seed)["model_identity"]
        return {"seed": self.seed, **recorded, "model_identity": identity, "says": self._says()}

    def process(self, model: Engine | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        ranked = {row["id"]: row for row in tables["rank"].to_pylist()}
        rows = tables["imagine"].to_pylist()
        written: dict[Place, list[Instruction]] = {}
        errors: dict[str, tuple[str, str]] = {}
        kept = {row["id"]: ranked[row["id"]]["kept"] for row in rows if ranked[row["id"]]["status"] == "ok"}
        if isinstance(self.spec, Written):
            assert model is not None
            self._write(model, [row for row in rows if row["id"] in kept], kept, written, errors)
        else:
            for row in rows:
                for at in kept.get(row["id"], ()):
                    written[row["id"], at] = self._make(row, at)
        return stage_table([self._row(row, ranked[row["id"]], written, errors) for row in rows], INSTRUCTIONS)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """How many ``questions`` there are, and how many of them were left out because they are ``leading`` or, of
        those that a model wrote, because they are ``no_question``."""
        reasons = pc.struct_field(pc.list_flatten(table["instructions"]), "reason")
        wanted = ("leading", "no_question") if isinstance(self.spec, Written) else ("leading",)
        left_out = {why: pc.sum(pc.starts_with(reasons, why)).as_py() or 0 for why in wanted}
        return {"questions": len(reasons), **left_out}

    def _row(
        self,
        row: Mapping[str, Any],
        ranked: Mapping[str, Any],
        written: Mapping[Place, Sequence[Instruction]],
        errors: Mapping[str, tuple[str, str]],
    ) -> dict[str, Any]:
        row_id = row["id"]
        if ranked["status"] != "ok":
            return {"id": row_id, **{key: ranked[key] for key in OK}}
        if row_id in errors:
            return {"id": row_id, **error_status(*errors[row_id])}
        flat = [{"image": at, **each} for at in ranked["kept"] for each in written[row_id, at]]
        return {"id": row_id, "instructions": [self._judge(each, row["text"]) for each in flat], **OK}

    def _judge(self, instruction: Instruction, text: str) -> Instruction:
        must_ask = isinstance(self.spec, Written) and not self.spec.keep_statements
        if must_ask and (asks := no_question(instruction["text"])) is not None:
            return {**instruction, "reason": f"no_question: {asks}"}
        # With an exact answer from what was drawn, a question takes nothing for granted that is not so.
        free = self.spec.keep_leading or instruction.get("answer") is not None
        why = None if free else leading(instruction["text"], text)
        return {**instruction, "reason": f"leading: {why}" if why else None}

    def _make(self, row: Mapping[str, Any], at: int) -> list[Instruction]:
        rng = random.Random(self._seed(row["id"], at))
        if isinstance(self.spec, Templates):
            templates = list(dict.fromkeys(self.spec.templates))
            return [{"text": text} for text in rng.sample(templates, min(self.spec.per_image, len(templates)))]
        assert isinstance(self.spec, SceneQuestions)
        return list(_about(row["images"][at]["facts"], self.spec, rng))

    def _write(
        self,
        model: Engine,
        rows: Sequence[Mapping[str, Any]],
        kept: Mapping[str, Sequence[int]],
        written: dict[Place, list[Instruction]],
        errors: dict[str, tuple[str, str]],
    ) -> None:
        """Ask the model about every kept image of all rows at once."""
        spec = self.spec
        assert isinstance(spec, Written)
        requests: Requests[tuple[Mapping[str, Any], int]] = Requests()
        sampling = Sampling(1, spec.ask().temperatures[0], 1.0, spec.max_tokens)
        for row in rows:
            for at in kept[row["id"]]:
                requests.add((row, at), self._request(f"{row['id']}#{at}", row, at), sampling)
        for (row, at), _, _, response in requests.responses(model):
            if (why := failure(response)) is not None:
                errors[row["id"]] = why
                continue
            texts = questions(response.completions[0].text, spec.per_image)
            if texts:
                written[row["id"], at] = [{"text": text} for text in texts]
            else:
                errors[row["id"]] = ("no_question", f"the model wrote none about image {at}")

    def _request(self, name: str, row: Mapping[str, Any], at: int) -> Request:
        assert isinstance(self.spec, Written)
        message = self._says().format(text=row["text"], count=self.spec.per_image)
        images = () if self.spec.shows == "text" else (row["images"][at]["bytes"],)
        return Request(name, images, (("user", message),), self._seed(row["id"], at))

    def _says(self) -> str:
        assert isinstance(self.spec, Written)
        return self.spec.instruction or BUILT_IN[self.spec.shows]

    def _seed(self, row_id: str, at: int) -> int:
        return seeds.derive(self.seed, row_id, "instruct", at)


def questions(answer: str, most: int) -> list[str]:
    """The first ``most`` lines of an answer, without numbering, quotation marks, empty and repeated ones, and without
    what introduces them (a line that ends in a colon).

    >>> questions("Here are two:\\n1. What is on the left?\\n2) What is on the left?\\n- Count the boats.", 5)
    ['What is on the left?', 'Count the boats.']
    """
    lines = (_NUMBERING.sub("", line).strip().strip('"').strip() for line in answer.splitlines())
    return list(dict.fromkeys(line for line in lines if line and not line.endswith(":")))[:most]


def _about(facts: Mapping[str, Any], spec: SceneQuestions, rng: random.Random) -> Iterator[Instruction]:
    from pipeline.scenes import drawn, grammar
    from pipeline.scenes.prompts import KINDS

    yield {"text": rng.choice(spec.prompts or grammar.DESCRIBE)}
    scene = drawn.scene(facts)
    seen: set[str] = set()
    for _ in range(spec.questions_per_scene):
        question = grammar.question(scene, rng.choice(KINDS), rng)
        if question.text not in seen:
            seen.add(question.text)
            yield {"text": question.text, "question_type": question.kind, "answer": question.answer}
