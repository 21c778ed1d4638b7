"""A value that no table can hold harms its own row: whatever stage it comes from, whichever column it is in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_kit import candidate, prompt_row

from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, VERDICTS, error_status, stage_table
from pipeline.engines import protocol as engines
from pipeline.engines.protocol import Completion, Request, Response, Sampling
from pipeline.engines.scripted import ScriptedEngine
from pipeline.sampling.config import Continuation, Sample
from pipeline.sampling.continuation import ContinueStage
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.ask import AskStage
from pipeline.sources.imagine.config import Written
from pipeline.sources.imagine.instruct import InstructStage
from reward.asking.judge import JudgeScorer

HALF = "\ud800"
SPEC = Sample(model="canned", n=2)
IDS = [f"p{i}" for i in range(8)]


def half(request: Request, index: int) -> str:
    """One answer of one prompt has half of a surrogate pair."""
    return f"A sun{HALF}." if request.id.startswith("p3") and index == 0 else "A sun and a boat."


def prompts() -> pa.Table:
    return pa.Table.from_pylist([prompt_row(id) for id in IDS], schema=PROMPTS)


def sampled() -> pa.Table:
    texts = [candidate("The image shows a sun over a boat.", temperature=1.0), candidate("A sun.", temperature=1.0)]
    return pa.Table.from_pylist([{"id": id, "candidates": texts, **OK} for id in IDS], schema=CANDIDATES)


@pytest.mark.parametrize(
    "stage",
    [
        SampleStage(SPEC, seed=1),
        AskStage(Sample(model="canned", n=1), JudgeScorer(criteria=(("good", "Is it?"),)), seed=1),
        ContinueStage(SPEC, Continuation(share=0.5), 1, ("sample",)),
    ],
    ids=lambda stage: type(stage).__name__,
)
def test_one_answer_with_half_of_a_surrogate_pair_is_one_failed_row(stage: Any) -> None:
    earlier = {} if isinstance(stage, SampleStage) else {"sample": sampled()}
    made = stage.process(ScriptedEngine(answer=half), {"source": prompts(), **earlier})
    bad = [row for row in made.to_pylist() if row["status"] == "failed"]
    if isinstance(stage, AskStage):  # one of two verdicts: the row stays, the verdict counts for nothing
        verdicts = [verdict for row in made.to_pylist() for verdict in row["verdicts"] or ()]
        assert sum("half of a surrogate pair" in (verdict["error"] or "") for verdict in verdicts) in (1, 2)
        assert len(made) == 8
        return
    assert len(made) == 8 and [row["id"] for row in bad] == ["p3"]
    assert bad[0]["error_type"] == "malformed_answer" and "half of a surrogate pair" in bad[0]["error"]


def test_so_it_is_where_a_model_writes_questions() -> None:
    spec = Written(kind="model", model="canned", engine={"kind": "scripted"})  # type: ignore[arg-type]
    drawn = {"bytes": b"", "seed": 1, "guidance": None, "facts": None, "error_type": None, "error": None}
    rows = [{"id": id, "text": "a sun", "images": [drawn], **OK} for id in IDS]
    ranked = [{"id": id, "scores": [1.0], "kept": [0], "reasons": [None], "faithful": [None], **OK} for id in IDS]
    from pipeline.base.tables import IMAGES, RANKED

    tables = {
        "imagine": pa.Table.from_pylist(rows, schema=IMAGES),
        "rank": pa.Table.from_pylist(ranked, schema=RANKED),
    }
    made = InstructStage(spec, 1).process(ScriptedEngine(answer=half), tables).to_pylist()
    assert [row["id"] for row in made if row["status"] == "failed"] == ["p3"] and len(made) == 8


class Odd:
    """An engine that answers as it is told, however wrong."""

    def __init__(self, *completions: Completion) -> None:
        self._completions = completions

    def generate(self, requests: Any, sampling: Sampling) -> Any:
        return (Response(request.id, self._completions) for request in requests)


@pytest.mark.parametrize(
    ("completions", "kind"),
    [
        ((Completion("a", 2**31, "stop", 0.0),), "malformed_answer"),
        ((Completion("a", -1, "stop", 0.0),), "malformed_answer"),
        ((Completion(HALF, 1, "stop", 0.0),), "malformed_answer"),
        ((), "too_few_answers"),
        ((Completion("a", 1, "stop", 0.0),) * 2, "too_few_answers"),
        ((Completion("a", None, "stop", None),), None),
    ],
)
def test_what_an_engine_says_is_looked_at_before_it_is_kept(completions: Any, kind: str | None) -> None:
    (response,) = engines.ask(Odd(*completions), [Request("r", (), (("user", "?"),), 1)], Sampling(n=1))
    assert response.error_type == kind


values = st.one_of(
    st.integers(-(2**70), 2**70), st.text(max_size=5), st.just(HALF), st.none(), st.floats(), st.lists(st.integers())
)


@given(st.lists(st.fixed_dictionaries({"chosen": values, "policy": values, "margin": values}), max_size=6))
def test_rows_that_a_schema_cannot_hold_fail_alone_and_none_is_lost(rows: list[dict[str, Any]]) -> None:
    made = [{"id": str(at), **row, **OK} for at, row in enumerate(rows)]
    table = stage_table(made, PAIRS)
    assert table["id"].to_pylist() == [str(at) for at in range(len(rows))]
    for row, kept in zip(made, table.to_pylist(), strict=True):
        alone = stage_table([row], PAIRS).to_pylist()[0]
        assert kept == alone or str(kept) == str(alone)  # not a number is not itself
        assert kept["status"] == "ok" or kept["error_type"] == "unstorable"


def test_a_reason_can_always_be_kept() -> None:
    row = error_status(HALF, f"said {HALF}" + "x" * 10_000)
    assert pa.Table.from_pylist([{"id": "a", **row}], schema=VERDICTS).num_rows == 1 and len(row["error"]) <= 2000
