"""The stages that rewrite texts, one by one: what they make, and what becomes of refusals and errors."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rewrite_kit import (
    DESCRIBED,
    FACTS,
    FALSE,
    TRUE,
    Listener,
    Texts,
    candidates,
    cooccurrence,
    restored,
    tables,
    through,
)
from stage_kit import candidate, png, prompt_row

from pipeline.base.errors import InputError
from pipeline.base.tables import CANDIDATES, OK, PROMPTS, error_status
from pipeline.engines.protocol import Request
from pipeline.engines.scripted import ScriptedEngine
from pipeline.rewriting import detect_stage as detect
from pipeline.rewriting import questions_stage as questions
from pipeline.rewriting.config import Correct, Detect, Inject, Questions, Restyle
from pipeline.rewriting.correct_stage import CorrectStage
from pipeline.rewriting.detect_stage import AskDetector, DetectStage
from pipeline.rewriting.inject_stage import CooccurrenceStage, InjectStage, together
from pipeline.rewriting.lineage import Gathered
from pipeline.rewriting.questions_stage import AnswerStage, QuestionSource
from pipeline.rewriting.restyle_stage import RestyleStage
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sampling.config import Sample
from pipeline.sources.stack import StackStage
from reward.text import fact_findings

ASKED = Sample.model_validate(
    {"model": "m", "revision": "r", "n": 1, "temperature": 0.5, "engine": {"kind": "scripted"}}
)
DETECT = DetectStage(Detect(), "scenes", "source", DESCRIBED)
CORRECT = CorrectStage(Correct(), "scenes", 0, "source", DESCRIBED)
INJECT = InjectStage(Inject(kinds=("object",)), "scenes", 0, "source", DESCRIBED, corrected=True)
PARTS = (DESCRIBED, CORRECT.name, INJECT.name)
RESTYLE = RestyleStage(Restyle(paraphrases=2), "scenes", 0, "source", PARTS)


def by_model(**changes: Any) -> CorrectStage:
    return replace(CORRECT, spec=Correct(by="model", model="m", **changes), asked=ASKED)


def asking(spec: Detect) -> tuple[AskDetector, DetectStage]:
    ask, looks = detect.stages(spec, "scenes", "source", DESCRIBED, (ASKED,), 0)
    assert isinstance(ask, AskDetector) and isinstance(looks, DetectStage)
    return ask, looks


def rows(made: dict[str, pa.Table], name: str) -> list[dict[str, Any]]:
    return made[name].to_pylist()


def detected(*of: Texts, **changes: Any) -> dict[str, pa.Table]:
    return through(tables(*of, **changes), DETECT)


# ------------------------------------------------------------------------------------------------------------- detect


def test_every_finding_is_stored_with_its_words_and_its_place() -> None:
    (row,) = rows(detected(candidates(TRUE, FALSE)), "detect")
    texts = (TRUE, FALSE)
    assert all(
        texts[finding["candidate"]][finding["start"] : finding["end"]] == finding["words"]
        for finding in row["findings"]
    )
    wrong = [finding for finding in row["findings"] if finding["verdict"] == "hallucination"]
    assert [[flaw[key] for key in ("candidate", "sentence", "kind", "by")] for flaw in wrong] == [
        [1, 1, "object", "facts"]
    ]
    assert "anchor" in wrong[0]["words"] and wrong[0]["reason"] and row["refused"] == []


def test_answers_to_questions_and_what_was_cut_off_or_rewritten_are_not_looked_through() -> None:
    odd = ({"finish_reason": "length"}, {"origin": "noised"}, {"origin": "given"})
    others = [text for change in odd for text in candidates(FALSE, **change)]
    (row,) = rows(detected(others), "detect")
    assert {finding["candidate"] for finding in row["findings"]} == {2}
    (row,) = rows(detected(candidates(FALSE), facts={**FACTS, "answer": "yes"}), "detect")
    assert (row["status"], row["findings"]) == ("ok", [])


def test_a_failed_row_stays_failed_and_says_why() -> None:
    outputs = detected(None, candidates(FALSE))
    assert [row["error_type"] for row in rows(outputs, "detect")] == ["timeout", None]
    for stage in (CORRECT, replace(INJECT, corrected=False)):
        made = through({**outputs, "cooccurrence": cooccurrence()}, stage)
        assert [row["error_type"] for row in rows(made, stage.name)] == ["timeout", None]


def test_a_text_on_which_a_rule_breaks_fails_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fact_findings.by_facts

    def breaking(text: str, *rest: Any) -> Any:
        if text == TRUE:
            raise ZeroDivisionError("so odd a text")
        return whole(text, *rest)

    monkeypatch.setattr(fact_findings, "by_facts", breaking)
    broken, fine = rows(detected(candidates(TRUE), candidates(FALSE)), "detect")
    assert (broken["error_type"], broken["error"]) == ("ZeroDivisionError", "so odd a text")
    assert fine["status"] == "ok" and fine["findings"]


def test_what_facts_do_not_tell_is_unclear() -> None:
    (row,) = rows(detected(candidates(FALSE), facts=None), "detect")
    assert {finding["verdict"] for finding in row["findings"]} == {"unclear"}


def verdicts(*says: str) -> str:
    return "\n".join(
        json.dumps({"sentence": number, "verdict": verdict, "kind": None, "words": None, "reason": "so"})
        for number, verdict in enumerate(says, start=1)
    )


def test_a_judge_is_asked_once_for_each_text_and_what_it_says_is_a_finding() -> None:
    ask, looks = asking(Detect(by="judge", model="m", engine=ASKED.engine))
    engine = Listener(lambda request, _: verdicts("correct", "hallucination"))
    outputs = through(tables(candidates(FALSE, FALSE)), ask, looks, engine=engine)
    (row,) = rows(outputs, "detect")
    assert Counter((finding["candidate"], finding["verdict"]) for finding in row["findings"]) == {
        (at, says): 1 for at in (0, 1) for says in ("correct", "hallucination")
    }
    assert {finding["by"] for finding in row["findings"]} == {"judge"} and len(engine.requests) == 1
    assert engine.requests[0][0].images == (png(),)
    (told,) = rows(outputs, ask.name)
    assert {verdict["answer"] for verdict in told["verdicts"]} == {verdicts("correct", "hallucination")}


def test_a_judge_who_cannot_be_read_has_given_no_verdict() -> None:
    ask, looks = asking(Detect(by="judge", model="m", blind=True, engine=ASKED.engine))

    def half(request: Request, _: int) -> str:
        return verdicts("correct", "correct") if "anchor" in request.messages[-1][1] else "Fine, I think."

    engine = Listener(half)
    row, lost = rows(through(tables(candidates(FALSE, TRUE), candidates(TRUE)), ask, looks, engine=engine), "detect")
    assert {finding["candidate"] for finding in row["findings"]} == {0} and row["status"] == "ok"
    assert [(refusal["candidate"], refusal["error_type"]) for refusal in row["refused"]] == [(1, "unreadable")]
    assert (lost["status"], lost["error_type"]) == ("failed", "unreadable") and "Fine" in lost["error"]
    assert {request.images for request, _ in engine.requests} == {()}
    counted = looks.extras(pa.Table.from_pylist([row], schema=looks.schema))
    assert counted["refused"] == 1 and counted["correct"] == 2


def test_claims_that_are_answered_with_no_are_hallucinations() -> None:
    spec = Detect(by="claims", model="m", vocabulary="scenes", template="Is there {claim}?", engine=ASKED.engine)
    ask, looks = asking(spec)
    engine = Listener(lambda request, _: "No" if "anchor" in request.messages[-1][1] else "Yes")
    (row,) = rows(through(tables(candidates(FALSE)), ask, looks, engine=engine), "detect")
    wrong = [finding["words"] for finding in row["findings"] if finding["verdict"] == "hallucination"]
    assert wrong == ["a green anchor"] and "correct" in {finding["verdict"] for finding in row["findings"]}
    counted = looks.extras(pa.Table.from_pylist([row], schema=looks.schema))
    assert (counted["true_positives"], counted["true_negatives"], counted["checked_texts"]) == (1, 1, 1)


def test_claims_that_a_model_does_not_answer_are_counted_and_make_no_text_right() -> None:
    spec = Detect(by="claims", model="m", vocabulary="scenes", template="Is there {claim}?", engine=ASKED.engine)
    ask, looks = asking(spec)

    def first(request: Request, _: int) -> tuple[tuple[str, float], ...]:
        answers = "anchor" not in request.messages[-1][1]
        return (("Yes" if answers else "The", -0.001), ("No", -7.0))

    engine = ScriptedEngine(answer=lambda *_: "Yes", first=first)
    given = {**tables(candidates(TRUE, FALSE)), "cooccurrence": cooccurrence()}
    outputs = through(given, ask, looks, replace(INJECT, corrected=False), engine=engine)
    (row,) = rows(outputs, "detect")
    assert {finding["verdict"] for finding in row["findings"]} == {"correct", "unclear"}
    counted = looks.extras(outputs["detect"])
    assert counted["unread"] == 1 and counted["unreadable_sentences"] == 1
    assert counted.keys().isdisjoint({"hallucination", "false_negatives", "true_positives"})
    assert ask.extras(outputs["detect-asked"])["unreadable"] == 1
    (made,) = rows(outputs, INJECT.name)
    assert {new["parent"] for new in made["candidates"]} == {0}
    assert [(refusal["candidate"], refusal["error_type"]) for refusal in made["refused"]] == [(1, "unreadable")]


def judged(answer: Any, *of: Texts, refuse: frozenset[str] = frozenset(), **changes: Any) -> tuple[Any, dict[str, int]]:
    """The rows of a judge's detection, and what the stage reports of them."""
    ask, looks = asking(Detect(by="judge", model="m", engine=ASKED.engine))
    outputs = through(tables(*of, **changes), ask, looks, engine=Listener(answer, refuse))
    return rows(outputs, "detect"), looks.extras(outputs["detect"])


def trusts_anchors(request: Request, _: int) -> str:
    """Calls right what is wrong, and the other way round."""
    return verdicts("correct", "correct") if "anchor" in request.messages[-1][1] else verdicts("hallucination")


CELLS = {f"{sign}_{cell}" for sign in ("true", "false") for cell in ("positives", "negatives")} | {
    "checked_texts",
    "unreadable_texts",
}


def test_what_a_judge_says_is_held_against_exact_facts_and_changes_no_finding() -> None:
    (row, _), counted = judged(trusts_anchors, candidates(FALSE, TRUE), candidates(TRUE))
    assert [(part["candidate"], part["sentence"], part["says"], part["true"]) for part in row["checked"]] == [
        (0, 0, "correct", "correct"),
        (0, 1, "correct", "hallucination"),
        (1, 0, "hallucination", "correct"),
    ]
    assert {name: counted[name] for name in sorted(CELLS & counted.keys())} == {
        "checked_texts": 3,
        "false_negatives": 1,
        "false_positives": 2,
        "true_negatives": 1,
    }
    wrong = {
        (finding["candidate"], finding["by"]) for finding in row["findings"] if finding["verdict"] == "hallucination"
    }
    assert wrong == {(1, "judge")}


def test_answers_that_cannot_be_read_are_counted_even_where_their_row_fails() -> None:
    def half(request: Request, _: int) -> str:
        return trusts_anchors(request, _) if "anchor" in request.messages[-1][1] else "Fine, I think."

    (kept, lost), counted = judged(half, candidates(FALSE, TRUE), candidates(TRUE))
    assert (kept["status"], lost["status"], lost["error_type"]) == ("ok", "failed", "unreadable")
    assert (counted["unreadable_texts"], counted["checked_texts"]) == (2, 1)
    assert [sentence["says"] for sentence in lost["checked"]] == [None]


def test_an_engine_that_fails_says_nothing_of_the_judge() -> None:
    (_, lost), counted = judged(trusts_anchors, candidates(FALSE), candidates(TRUE), refuse=frozenset({"p1#detect#0"}))
    assert lost["error_type"] == "refused" and lost["checked"] == []
    assert counted["checked_texts"] == 1 and "unreadable_texts" not in counted


@pytest.mark.parametrize("facts", [None, {"regions": [{"phrase": "a red sun", "box": [0, 0, 1, 1]}]}])
def test_where_nothing_exact_is_known_nobody_tells_how_right_a_judge_is(facts: Any) -> None:
    (row,), counted = judged(trusts_anchors, candidates(FALSE), facts=facts)
    assert row["checked"] == [] and not CELLS & counted.keys()


def test_what_facts_find_is_stored_as_before() -> None:
    outputs = detected(candidates(FALSE))["detect"]
    assert "checked" not in outputs.column_names and not CELLS & DETECT.extras(outputs).keys()
    _, looks = asking(Detect(by="judge", model="m", engine=ASKED.engine))
    assert (DETECT.version, looks.version) == (1, 2)


def test_findings_do_not_depend_on_the_other_rows() -> None:
    given = [candidates(TRUE, FALSE), candidates(FALSE), candidates("Nothing much.")]
    together_ = rows(detected(*given), "detect")
    for at, alone in enumerate(given):
        (row,) = rows(detected(alone), "detect")
        assert row["findings"] == together_[at]["findings"]


def test_the_fingerprint_of_detection_has_what_decides_and_nothing_else() -> None:
    base = DETECT.options()
    assert base != replace(DETECT, spec=Detect(complete=False)).options()
    ask, looks = asking(Detect(by="judge", model="m", engine=ASKED.engine))
    assert looks.inputs == ("source", DESCRIBED, ask.name) and looks.options()["asked"] == ask.ask.scored_as
    other = asking(Detect(by="judge", model="m", facts=False, engine=ASKED.engine))[1]
    assert other.options() != looks.options() != base


# ------------------------------------------------------------------------------------------------------------ correct


def test_a_text_with_a_hallucination_gets_a_corrected_one_and_no_other_does() -> None:
    (row,) = rows(through(detected(candidates(TRUE, FALSE)), CORRECT), CORRECT.name)
    (new,) = row["candidates"]
    assert (new["origin"], new["parent"], new["model"], new["on_policy"]) == ("corrected", 1, None, None)
    assert new["text"].startswith(TRUE) and "anchor" not in new["text"]
    assert restored(FALSE, new) == new["text"]


def test_what_rules_cannot_correct_is_refused_with_a_reason() -> None:
    ask, looks = asking(Detect(by="judge", model="m", engine=ASKED.engine))
    engine = Listener(lambda *_: verdicts("correct", "hallucination"))
    outputs = through(tables(candidates(FALSE), facts=None), ask, looks, engine=engine)
    outputs = through(outputs, CORRECT)
    (row,) = rows(outputs, CORRECT.name)
    assert (row["status"], row["candidates"]) == ("ok", [])
    assert [(refusal["candidate"], refusal["error_type"], refusal["text"]) for refusal in row["refused"]] == [
        (0, "no_facts", None)
    ]
    assert CORRECT.extras(outputs[CORRECT.name]) == {"no_facts": 1}


def test_a_model_may_change_flagged_sentences_only() -> None:
    given = detected(candidates(FALSE), candidates(FALSE))
    honest = FALSE.partition(". ")[0] + "."

    def answer(request: Request, _: int) -> str:
        meddles = request.id.startswith("p1")
        return _corrected(2, "There is nothing else.", touch="The image shows a red moon." if meddles else None)

    outputs = through(given, by_model(), engine=Listener(answer))
    kept, refused = rows(outputs, "sample-corrected")
    (new,) = kept["candidates"]
    assert new["text"].startswith(honest) and restored(FALSE, new) == new["text"]
    assert (new["model"], new["revision"], new["temperature"]) == ("m", "r", 0.5) and new["seed"] is not None
    assert refused["candidates"] == [] and refused["status"] == "ok"
    (why,) = refused["refused"]
    assert why["error_type"] == "touched_the_rest" and "red moon" in why["text"]


def _corrected(number: int, text: str, touch: str | None = None) -> str:
    lines = [{"sentence": number, "text": text}]
    if touch is not None:
        lines.insert(0, {"sentence": 1, "text": touch})
    return "\n".join(map(json.dumps, lines))


def test_an_engine_that_fails_for_a_text_fails_its_row_alone_and_so_does_a_lost_image(tmp_path: Path) -> None:
    given = detected(candidates(FALSE), candidates(FALSE, FALSE), candidates(FALSE))
    gone = prompt_row("p2", facts=FACTS, images=[{"bytes": None, "path": str(tmp_path / "gone.png")}])
    prompts = [prompt_row(f"p{at}", facts=FACTS) for at in range(2)]
    given["source"] = pa.Table.from_pylist([*prompts, gone], schema=PROMPTS)
    engine = Listener(lambda *_: _corrected(2, "There is nothing else."), refuse=frozenset({"p1#1"}))
    out = rows(through(given, by_model(), engine=engine), "sample-corrected")
    assert [row["error_type"] for row in out] == [None, "refused", "missing_image"]
    assert "gone.png" in out[2]["error"]
    blind = Listener(lambda *_: _corrected(2, "There is nothing else."))
    out = rows(through(given, by_model(blind=True), engine=blind), "sample-corrected")
    assert {row["status"] for row in out} == {"ok"} and {request.images for request, _ in blind.requests} == {()}


def test_a_model_that_corrects_is_asked_as_the_recipe_says() -> None:
    engine = Listener(lambda *_: _corrected(2, "There is nothing else."))
    through(detected(candidates(FALSE)), by_model(max_tokens=77), engine=engine)
    ((request, sampling),) = engine.requests
    assert (sampling.n, sampling.temperature, sampling.max_tokens) == (1, 0.5, 77)
    assert request.images == (png(),) and "anchor" in request.messages[-1][1]
    assert by_model(max_tokens=77).options() != by_model().options() != CORRECT.options()
    assert by_model().worker is not None and CORRECT.worker is None


# ------------------------------------------------------------------------------------------------------------- inject


def injected(*of: Texts, **changes: Any) -> list[dict[str, Any]]:
    stage = replace(INJECT, spec=Inject(**{"kinds": ("object",), **changes}))
    outputs = through({**detected(*of), "cooccurrence": cooccurrence()}, CORRECT, stage)
    return rows(outputs, stage.name)


def test_faults_go_into_texts_in_which_nothing_is_wrong_any_more() -> None:
    (row,) = injected(candidates(TRUE, FALSE))
    assert [(new["origin"], new["parent"]) for new in row["candidates"]] == [("injected", 0), ("injected", 2)]
    first = row["candidates"][0]
    assert restored(TRUE, first) == first["text"] != TRUE
    (looked,) = rows(detected(candidates(first["text"])), "detect")
    assert "hallucination" in {finding["verdict"] for finding in looked["findings"]}


def test_several_versions_differ_and_are_the_same_every_time() -> None:
    first, second = (injected(candidates(TRUE), candidates(TRUE), per_text=4) for _ in range(2))
    assert first == second
    for row in first:
        texts = [new["text"] for new in row["candidates"]]
        assert len(texts) == len(set(texts)) > 1


def test_without_facts_nothing_is_injected_and_the_reason_is_told() -> None:
    stage = replace(INJECT, corrected=False)
    outputs = through({**detected(candidates(TRUE), facts=None), "cooccurrence": cooccurrence()}, stage)
    (row,) = rows(outputs, stage.name)
    assert row["candidates"] == [] and [refusal["error_type"] for refusal in row["refused"]] == ["no_facts"]


def put(run: Run, given: dict[str, pa.Table], shard: int = 0) -> None:
    for name, table in given.items():
        run.write(name, shard, table)


def test_what_goes_along_is_counted_over_all_shards_and_lies_beside_each(tmp_path: Path) -> None:
    run = Run(tmp_path)
    moons = {"objects": [{"name": "moon"}, {"name": "cloud"}]}
    put(run, {"source": tables([], [])["source"]})
    other = prompt_row("q", facts=moons, images=[{"bytes": png(1), "path": "b.png"}])
    put(run, {"source": pa.Table.from_pylist([other, prompt_row("r", facts=FACTS)], schema=PROMPTS)}, shard=1)
    made = dict(CooccurrenceStage("scenes", "source").shards(run))
    assert list(made) == [0, 1] and made[0].equals(made[1])
    both = cooccurrence(FACTS, moons)  # the same image three times counts once
    assert together(made[0]).as_json() == together(both).as_json() != together(cooccurrence(FACTS)).as_json()


# ------------------------------------------------------------------------------------------------------------ restyle


def restyled(*of: Texts, stage: RestyleStage = RESTYLE, engine: Any = None) -> dict[str, pa.Table]:
    outputs = through({**detected(*of), "cooccurrence": cooccurrence()}, CORRECT, INJECT)
    return through(outputs, stage, engine=engine)


def test_both_sides_are_worded_anew_and_what_is_in_no_pair_is_not() -> None:
    plain = "Nothing much."
    outputs = restyled(candidates(TRUE, FALSE, plain))
    (row,) = rows(outputs, RESTYLE.name)
    every = Gathered((*PARTS, RESTYLE.name)).process(None, outputs).to_pylist()[0]["candidates"]
    parents = Counter(every[new["parent"]]["origin"] for new in row["candidates"])
    assert set(parents) == {"sampled", "corrected", "injected"} and {new["origin"] for new in row["candidates"]} == {
        "restyled"
    }
    assert all(count <= 2 * 2 for count in parents.values())
    texts = {(new["parent"], new["text"]) for new in row["candidates"]}
    assert len(texts) == len(row["candidates"]) and all(every[parent]["text"] != text for parent, text in texts)
    assert plain not in {every[new["parent"]]["text"] for new in row["candidates"]}


def test_a_paraphrase_that_says_something_else_is_refused_with_what_it_says() -> None:
    stage = replace(RESTYLE, spec=Restyle(by="model", model="m", paraphrases=2), asked=ASKED)

    def answer(request: Request, index: int) -> str:
        quoted = re.findall(r"^> (.*)$", request.messages[-1][1], re.MULTILINE)[-1]
        other = {"a red sun": "a green moon"}
        said_ = quoted.replace("The image shows", "You can see")
        return said_ if index == 0 else said_.replace("a red sun", other["a red sun"])

    engine = Listener(answer)
    (row,) = rows(restyled(candidates(FALSE), stage=stage, engine=engine), stage.name)
    assert row["candidates"] and {new["model"] for new in row["candidates"]} == {"m"}
    assert all("red sun" in new["text"] and new["text"].startswith("You can see") for new in row["candidates"])
    assert {refusal["error_type"] for refusal in row["refused"]} == {"other_facts"}
    assert all("green moon" in refusal["text"] for refusal in row["refused"])
    requests = [request for request, _ in engine.requests]
    assert {sampling.n for _, sampling in engine.requests} == {2} and {request.images for request in requests} == {()}
    instructions = {re.sub(r"^> .*$", "", request.messages[-1][1], flags=re.MULTILINE) for request in requests}
    assert len(instructions) == 1, "both sides hear the same"


# ---------------------------------------------------------------------------------------------------------- questions

QUESTIONS = QuestionSource(Questions(per_image=4), "scenes", 0, 4, "source", DESCRIBED, 1 << 20, 1 << 20)


def asked_run(tmp_path: Path, *of: Texts, shards: int = 1) -> Run:
    run = Run(tmp_path)
    for shard in range(shards):
        put(run, {**detected(*of), "cooccurrence": cooccurrence()}, shard)
    return run


def asked_rows(run: Run, stage: QuestionSource = QUESTIONS) -> list[dict[str, Any]]:
    return [row for _, table in stage.shards(run) for row in table.to_pylist()]


def test_questions_are_prompts_with_the_facts_of_their_image_and_the_right_answer(tmp_path: Path) -> None:
    prompts = asked_rows(asked_run(tmp_path, candidates(FALSE)))
    assert 0 < len(prompts) <= 4 and {row["status"] for row in prompts} == {"ok"}
    by_text = {row["prompt"][-1]["content"]: row for row in prompts}
    (made_up,) = (row for text, row in by_text.items() if "anchor" in text)
    assert made_up["facts"]["answer"].lower() == "no" and made_up["source"] == "rewrite:hallucinated"
    assert {row["facts"]["answer"].lower() for row in prompts} == {"yes", "no"}
    assert all(row["images"][0]["bytes"] == png() and row["facts"]["objects"][0]["name"] == "sun" for row in prompts)


def test_what_was_asked_about_an_image_is_not_asked_again(tmp_path: Path) -> None:
    run = asked_run(tmp_path, candidates(FALSE))
    (first, *_) = asked_rows(run)
    again = prompt_row("q", facts={**FACTS, "answer": "no"}, prompt=first["prompt"])
    prompts = pa.Table.from_pylist([*run.read("source", 0).to_pylist(), again], schema=PROMPTS)
    run.write("source", 0, prompts)
    assert first["prompt"] not in [row["prompt"] for row in asked_rows(run)]
    twice = asked_run(tmp_path / "twice", candidates(FALSE), candidates(FALSE), shards=2)
    ids = [row["id"] for row in asked_rows(twice)]
    assert len(ids) == len(set(ids))


def test_questions_need_all_that_was_looked_through(tmp_path: Path) -> None:
    run = asked_run(tmp_path, candidates(FALSE), shards=2)
    run.remove("detect", 1)
    with pytest.raises(InputError, match=r"'detect', which has 1 of 2 shards"):
        asked_rows(run)


def test_where_nothing_can_be_asked_what_helps_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'questions' has no prompts\n.*--preview N.*rewrite.questions=null"):
        asked_rows(asked_run(tmp_path, candidates(FALSE, finish_reason="length")))


def answered(*texts: str | None, answer: str = "no", keep: float = 0.0) -> list[dict[str, Any]]:
    ids = [f"q{at}" for at in range(len(texts))]
    prompts = [prompt_row(id, facts={**FACTS, "answer": answer}) for id in ids]
    said_ = [
        {"id": id, **(error_status("timeout", "late") if text is None else {"candidates": [candidate(text)], **OK})}
        for id, text in zip(ids, texts, strict=True)
    ]
    stage = AnswerStage(Questions(keep_right=keep), 0)
    given = {
        "questions": pa.Table.from_pylist(prompts, schema=PROMPTS),
        "sample-asked": pa.Table.from_pylist(said_, schema=CANDIDATES),
    }
    return stage.process(None, given).to_pylist()


def lineage(row: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    return [(new["text"], new["origin"], new["parent"]) for new in row["candidates"]]


def test_a_wrong_answer_gets_the_right_one_in_its_own_style() -> None:
    short, dotted, long, late = answered("Yes", "yes.", "Yes, there is one on the left.", None)
    assert lineage(short) == [("Yes", "sampled", None), ("No", "corrected", 0)]
    assert lineage(dotted) == [("yes.", "sampled", None), ("no.", "corrected", 0)]
    assert lineage(long)[1:] == [("No.", "corrected", 0), ("Yes.", "injected", 1)]
    assert late["error_type"] == "timeout"
    assert restored("Yes", short["candidates"][1]) == "No"


def test_a_question_answered_right_or_beside_the_point_is_left_out_with_the_reason() -> None:
    right, odd = answered("No.", "I do not know what that is, perhaps.")
    assert len(right["candidates"]) == len(odd["candidates"]) == 1
    assert [refusal["error_type"] for refusal in right["refused"]] == ["answered_right"]
    assert [refusal["error_type"] for refusal in odd["refused"]] == ["unreadable"]
    kept = answered(*["No."] * 60, keep=0.5)
    made = [row for row in kept if len(row["candidates"]) == 2]
    assert 15 < len(made) < 45 and all(lineage(row)[1] == ("Yes.", "injected", 0) for row in made)


def test_an_answer_of_a_word_has_no_opposite() -> None:
    wrong, right = answered("Blue.", "Red.", answer="red", keep=1.0)
    assert lineage(wrong) == [("Blue.", "sampled", None), ("Red.", "corrected", 0)]
    assert [refusal["error_type"] for refusal in right["refused"]] == ["answered_right"]


# -------------------------------------------------------------------------------------------------------------- stack


def test_a_stack_has_the_rows_of_both_tables_in_shards_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    first, second = tables(candidates(TRUE), candidates(FALSE)), tables(candidates(FALSE))
    for shard in (0, 1):
        run.write("a", shard, first[DESCRIBED])
    run.write("b", 0, second[DESCRIBED])
    stage = StackStage("sample", "a", "b", CANDIDATES)
    with Executor(run) as executor:
        result = executor.write(stage)
        assert (result.rows, run.shards("sample")) == (5, [0, 1, 2])
        assert run.read("sample", 2).to_pylist() == second[DESCRIBED].to_pylist()
        assert executor.write(stage).reused == 3
        run.write("b", 1, first[DESCRIBED])
        assert executor.write(stage).reused == 0 and run.shards("sample") == [0, 1, 2, 3]


def test_a_stack_keeps_the_columns_that_it_names_and_misses_a_table(tmp_path: Path) -> None:
    run = Run(tmp_path)
    outputs = through(detected(candidates(FALSE)), CORRECT)
    run.write("a", 0, outputs[CORRECT.name])
    stage = StackStage("sample", "a", "b", CANDIDATES)
    with pytest.raises(InputError, match="'b', which has no shards"):
        list(stage.shards(run))
    run.write("b", 0, outputs[DESCRIBED])
    assert [table.schema.names for _, table in stage.shards(run)] == [CANDIDATES.names] * 2


def test_examples_of_the_documentation_hold() -> None:
    import doctest

    assert doctest.testmod(questions).failed == 0
