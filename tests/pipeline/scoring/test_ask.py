"""How a shard is asked about: in full batches, each question once, and what becomes of answers and errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_kit import candidate, png, prompt_row

from pipeline.base.tables import CANDIDATES, OK, PROMPTS, VERDICTS, error_status
from pipeline.engines.protocol import Request, Response, Sampling
from pipeline.engines.scripted import ScriptedEngine
from pipeline.running.executor import Executor, process_shard
from pipeline.running.store import Run, make_record
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage, worker
from pipeline.scoring.ask import AskStage, read_verdicts
from reward.asking.claims import ClaimScorer
from reward.asking.judge import JudgeScorer
from reward.asking.protocol import Answer, Asker, Question, Verdict
from reward.text.object_vocabulary import Vocabulary

SPEC = Sample.model_validate({"model": "m", "n": 1, "temperature": 0.0, "engine": {"kind": "scripted"}})
GRADES = JudgeScorer(criteria=(("x", "Fine?"),))
DUEL = JudgeScorer(mode="pairwise")
CLAIMS = ClaimScorer(vocabulary=Vocabulary("v", "1", {"sun": "sun", "cup": "cup"}), template="Is there {claim}?")


def tables(*prompts: dict[str, Any], texts: Sequence[str] = ("A sun.", "A sun and a cup.")) -> dict[str, pa.Table]:
    rows = [
        {"id": p["id"], "candidates": [candidate(text) for text in texts], **OK}
        if p["status"] == "ok"
        else {"id": p["id"], **error_status(p["error_type"], p["error"])}
        for p in prompts
    ]
    return {
        "source": pa.Table.from_pylist(list(prompts), schema=PROMPTS),
        "sample": pa.Table.from_pylist(rows, schema=CANDIDATES),
    }


@dataclass
class Recorder:
    """A scripted engine that remembers what it was asked, call by call."""

    engine: ScriptedEngine
    calls: list[tuple[Sampling, list[Request]]] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        self.calls.append((sampling, list(requests)))
        # Backwards: answers come in any order.
        return iter(list(self.engine.generate(requests, sampling))[::-1])

    @property
    def requests(self) -> list[Request]:
        return [request for _, requests in self.calls for request in requests]


def answering(answer: Callable[[str], str], **options: Any) -> Recorder:
    return Recorder(ScriptedEngine(answer=lambda request, index: answer(request.messages[-1][1]), **options))


def run(stage: AskStage, engine: Any, given: dict[str, pa.Table]) -> list[dict[str, Any]]:
    table = stage.process(engine, given)
    assert table.schema == VERDICTS
    return table.to_pylist()


def grade_by_length(question: str) -> str:
    return f"Score: {1 + question.count('cup')}"


# ------------------------------------------------------------------------------------------------------------ asking


def test_all_prompts_of_a_shard_are_asked_in_one_call() -> None:
    engine = answering(grade_by_length)
    rows = run(AskStage(SPEC, GRADES, seed=0), engine, tables(*(prompt_row(row_id) for row_id in "abc")))
    assert len(engine.calls) == 1 and len(engine.requests) == 6
    assert [row["id"] for row in rows] == ["a", "b", "c"] and {row["status"] for row in rows} == {"ok"}
    for row in rows:
        assert [(v["candidate"], v["answer"]) for v in row["verdicts"]] == [(0, "Score: 1"), (1, "Score: 2")]


def test_an_answer_belongs_to_its_question_whatever_the_order() -> None:
    given = tables(prompt_row("a"), prompt_row("b"))
    forth = run(AskStage(SPEC, GRADES, seed=0), answering(grade_by_length).engine, given)
    assert forth == run(AskStage(SPEC, GRADES, seed=0), answering(grade_by_length), given)


def test_a_question_is_asked_once_for_equal_texts_and_the_images_go_along_or_do_not() -> None:
    given = tables(prompt_row("a"), texts=("A sun.", "A sun.", "A cup."))
    engine = answering(grade_by_length)
    (row,) = run(AskStage(SPEC, GRADES, seed=0), engine, given)
    assert len(engine.requests) == 2 and len(row["verdicts"]) == 3
    assert {request.images for request in engine.requests} == {(png(),)}
    blind = answering(grade_by_length)
    run(AskStage(SPEC, JudgeScorer(criteria=GRADES.criteria, blind=True), seed=0), blind, given)
    assert {request.images for request in blind.requests} == {()}


def test_how_is_asked_comes_from_the_spec_and_the_question() -> None:
    spec = SPEC.model_copy(update={"system_prompt": "Be strict.", "temperature": 0.5})
    engine = answering(lambda _: "Yes")
    run(AskStage(spec, CLAIMS, seed=0), engine, tables(prompt_row("a")))
    ((sampling, requests),) = engine.calls
    assert sampling == Sampling(n=1, temperature=0.5, max_tokens=1, top_logprobs=20)
    assert requests[0].messages == (("system", "Be strict."), ("user", "Is there a sun?"))
    graded = answering(grade_by_length)
    run(AskStage(SPEC, GRADES, seed=0), graded, tables(prompt_row("a")))
    assert graded.calls[0][0] == Sampling(n=1, temperature=0.0, max_tokens=256)


def test_every_question_has_its_own_id_and_seed_whatever_shares_its_shard() -> None:
    together, alone = answering(grade_by_length), answering(grade_by_length)
    run(AskStage(SPEC, GRADES, seed=0), together, tables(prompt_row("a"), prompt_row("b")))
    run(AskStage(SPEC, GRADES, seed=0), alone, tables(prompt_row("b")))
    seeds = {request.id: request.seed for request in together.requests}
    assert len(seeds) == len(set(seeds.values())) == 4
    assert {request.id: request.seed for request in alone.requests}.items() <= seeds.items()
    other = answering(grade_by_length)
    run(AskStage(SPEC, GRADES, seed=1), other, tables(prompt_row("a")))
    assert not {request.seed for request in other.requests} & set(seeds.values())


@dataclass(frozen=True)
class Rounds:
    """Asks ``rounds[id]`` questions one after the other, each repeating the answer before; breaks at prompt ``x``."""

    rounds: dict[str, int]

    name, version = "rounds", "1"

    def ask(self, row: Any) -> Generator[list[Question], list[Answer], list[Verdict]]:
        end = row["id"]
        for number in range(self.rounds[row["id"]]):
            if row["id"] == "x" and number:
                raise ValueError("cannot stand it")
            (answer, again) = yield [Question(f"{end}{number}", 9)] * 2
            assert answer == again
            end = answer.text or ""
        return [Verdict(0, "end", end)]

    def scores(self, row: Any, verdicts: Sequence[Verdict]) -> dict[str, list[float | None]]:
        return {"rounds": [None] * len(row["candidates"])}

    def counts(self, verdicts: Sequence[Verdict]) -> dict[str, int]:
        return {"verdicts": len(verdicts)}


def test_rounds_of_all_prompts_go_together_and_one_that_breaks_fails_alone() -> None:
    engine = answering(str.upper)
    asker: Asker = Rounds({"a": 3, "b": 1, "x": 2, "z": 0})
    rows = run(AskStage(SPEC, asker, seed=0), engine, tables(*(prompt_row(row_id) for row_id in "abxz")))
    assert [len(requests) for _, requests in engine.calls] == [3, 1, 1]  # x breaks at its second
    assert len({request.id for request in engine.requests}) == 5
    assert [row["verdicts"] and row["verdicts"][0]["answer"] for row in rows] == ["A012", "B0", None, "z"]
    assert (rows[2]["status"], rows[2]["error_type"], rows[2]["error"]) == ("failed", "ValueError", "cannot stand it")


# ------------------------------------------------------------------------------------------------------------ errors


def refusing(*ids: str) -> Recorder:
    return answering(grade_by_length, refuse=frozenset(ids))


def test_the_error_of_one_question_is_the_error_of_its_verdict() -> None:
    (row,) = run(AskStage(SPEC, GRADES, seed=0), refusing("a#judge#1"), tables(prompt_row("a")))
    first, second = row["verdicts"]
    assert (row["status"], first["error"]) == ("ok", None)
    assert (second["answer"], second["error"]) == (None, "refused: a#judge#1 is on the list")


def test_a_row_all_of_whose_verdicts_failed_is_a_failed_row_that_keeps_them() -> None:
    engine = refusing("a#judge#0", "a#judge#1")
    a, b = run(AskStage(SPEC, GRADES, seed=0), engine, tables(prompt_row("a"), prompt_row("b")))
    assert (a["status"], a["error_type"], b["status"]) == ("failed", "refused", "ok")
    assert "a#judge#0 is on the list" in a["error"] and len(a["verdicts"]) == 2
    mute = answering(lambda _: "I would rather not.")
    (row,) = run(AskStage(SPEC, GRADES, seed=0), mute, tables(prompt_row("a")))
    assert (row["status"], row["error_type"]) == ("failed", "unreadable")


def test_a_row_without_questions_is_no_failure() -> None:
    (row,) = run(AskStage(SPEC, DUEL, seed=0), answering(grade_by_length), tables(prompt_row("a"), texts=("A sun.",)))
    assert (row["status"], row["verdicts"]) == ("ok", [])


def test_a_failed_row_stays_failed_and_a_lost_image_fails_its_row_alone(tmp_path: Path) -> None:
    broken = prompt_row("b", **error_status("unreadable_image", "why"))
    gone = prompt_row("c", images=[{"bytes": None, "path": str(tmp_path / "lost.png")}])
    engine = answering(grade_by_length)
    rows = run(AskStage(SPEC, GRADES, seed=0), engine, tables(prompt_row("a"), broken, gone))
    assert [row["error_type"] for row in rows] == [None, "unreadable_image", "missing_image"]
    assert rows[1]["error"] == "why" and "lost.png" in rows[2]["error"]
    assert {request.id.split("#")[0] for request in engine.requests} == {"a"}
    assert AskStage(SPEC, GRADES, seed=0).process(engine, tables()).num_rows == 0


# ------------------------------------------------------------------------------------------------ what it comes to


def test_a_judge_who_changes_with_the_order_is_counted() -> None:
    stage = AskStage(SPEC, DUEL, seed=0)
    table = stage.process(answering(lambda _: "Verdict: A"), tables(prompt_row("a"), prompt_row("b")))
    assert stage.extras(table) == {"verdicts": 4, "unanswered": 0, "unreadable": 0, "pairs": 2, "flips": 2, "ties": 0}
    assert DUEL.scores({"candidates": [{"text": "A sun."}, {"text": "A sun and a cup."}]}, read_verdicts(
        table["verdicts"][0].as_py()
    )) == {"judge.wins": [0.5, 0.5]}  # fmt: skip


def test_the_probability_of_yes_is_stored() -> None:
    def first(request: Request, index: int) -> tuple[tuple[str, float], ...]:
        yes = 0.9 if "sun" in request.messages[-1][1] else 0.2
        return (("Yes", math.log(yes)), ("No", math.log(1 - yes)))

    engine = Recorder(ScriptedEngine(("Yes",), first=first))
    (row,) = run(AskStage(SPEC, CLAIMS, seed=0), engine, tables(prompt_row("a")))
    assert [(v["candidate"], v["question"], round(v["p_yes"], 6)) for v in row["verdicts"]] == [
        (0, "a sun", 0.9), (1, "a sun", 0.9), (1, "a cup", 0.2),
    ]  # fmt: skip


def test_the_fingerprint_has_the_model_and_the_questions_and_nothing_of_sampling() -> None:
    def options(asker: Asker = GRADES, **changes: Any) -> dict[str, Any]:
        return AskStage(SPEC.model_copy(update=changes), asker, seed=0).options()

    base = options()
    assert base["model_identity"] == "scripted:m" and base["judge"] == GRADES.version
    assert not {"n", "on_policy", "max_tokens", "top_p"} & set(base)
    assert options(n=4, max_tokens=7) == base
    for other in (options(CLAIMS), options(model="o"), options(temperature=0.5), options(system_prompt="s")):
        assert other != base
    assert AskStage(SPEC, GRADES, seed=0).scored_as == f"{GRADES.version}:scripted:m"


def test_the_worker_is_the_one_that_samples_the_same_model() -> None:
    sampled = SPEC.model_copy(update={"n": 8, "temperature": 1.0, "max_tokens": 96})
    assert AskStage(SPEC, GRADES, seed=0).worker == SampleStage(sampled, 0).worker == worker(sampled)


def test_a_shard_is_written_with_its_counts_and_rows_that_time_out_are_tried_again(tmp_path: Path) -> None:
    store = Run(tmp_path)
    given = tables(prompt_row("a"), prompt_row("b"))
    for name, table in given.items():
        store.write(name, 0, table)
        store.save(make_record(name, 1, {}, {}))
    stage = AskStage(SPEC, GRADES, seed=0)
    about = process_shard(stage, answering(grade_by_length), store, 0)
    assert (about.rows, about.failed, about.retry, about.extras["verdicts"]) == (2, 0, False, 4)

    class Slow:
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
            return (Response(request.id, error_type="timeout", error="slow") for request in requests)

    assert process_shard(stage, Slow(), store, 0).retry


@pytest.mark.parametrize(("error_type", "again"), [("timeout", True), ("bad_request", False)])
def test_a_single_question_that_timed_out_is_a_reason_to_ask_again(
    tmp_path: Path, error_type: str, again: bool
) -> None:
    """The row holds without it: its other candidates have their verdicts."""
    store = Run(tmp_path)
    for name, table in tables(prompt_row("a"), prompt_row("b")).items():
        store.write(name, 0, table)
        store.save(make_record(name, 1, {}, {}))
    plain = answering(grade_by_length)

    class Once:
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
            first, *others = plain.generate(requests, sampling)
            return iter([Response(first.id, error_type=error_type, error="no"), *others])

    about = process_shard(AskStage(SPEC, GRADES, seed=0), Once(), store, 0)
    assert (about.failed, about.retry) == (0, again)


def test_a_stage_that_asks_runs_on_the_pool(tmp_path: Path, ray_cluster: None) -> None:
    store = Run(tmp_path)
    for name, table in tables(*(prompt_row(row_id) for row_id in "abc")).items():
        store.write(name, 0, table)
        store.save(make_record(name, 1, {}, {}))
    spec = Sample.model_validate({"model": "m", "n": 1, "engine": {"kind": "scripted", "texts": ["Score: 7"]}})
    with Executor(store) as executor:
        result = executor.run(AskStage(spec, GRADES, seed=0))
    assert (result.rows, result.failed, result.extras["verdicts"]) == (3, 0, 6)


@pytest.mark.parametrize("asker", [GRADES, DUEL, CLAIMS])
def test_answers_do_not_depend_on_what_shares_the_shard(asker: Asker) -> None:
    spec = Sample.model_validate({"model": "m", "n": 1, "engine": {"kind": "scripted"}})
    engine = ScriptedEngine(("Score: 3\nVerdict: A", "Verdict: B", "Verdict: tie", "Yes", "No"))
    stage = AskStage(spec, asker, seed=3)
    whole = run(stage, engine, tables(*(prompt_row(row_id) for row_id in "abcd")))
    parts = [row for id in "abcd" for row in run(stage, engine, tables(prompt_row(id)))]
    assert whole == parts
