"""Candidates of origin ``continued``: what becomes of an answer's beginning without the image."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stage_kit import TEXTS, candidate, pending, png, prompt_row, recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.base.errors import ConfigError
from pipeline.base.tables import CANDIDATES, OK, PROMPTS, error_status
from pipeline.engines.protocol import Request, Response, Sampling
from pipeline.engines.scripted import ScriptedEngine
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run
from pipeline.sampling import continuation as continue_
from pipeline.sampling.config import Continuation, Sample
from pipeline.sampling.continuation import FEWEST_WORDS, ContinueStage, beginning
from pipeline.sampling.gather import GatherStage
from pipeline.sampling.stage import SampleStage

ENGINE = {"kind": "scripted", "texts": TEXTS}
PARTS = ("sample-x", "sample-y")
DOCS = Path(__file__).parents[3] / "docs" / "pairing.md"
LONG, LONGER = "The image shows a sun.", "There is a boat under  a red sun."


class Ear(ScriptedEngine):
    """Goes on with the same words; writes down what it was asked."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(("and so on.",), **changes)
        object.__setattr__(self, "requests", [])

    requests: list[tuple[Request, Sampling]]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        self.requests += [(request, sampling) for request in requests]
        return super().generate(requests, sampling)


def stage(parts: tuple[str, ...] = PARTS, on_policy: bool = True, **rule: Any) -> ContinueStage:
    spec = Sample.model_validate({"model": "m", "revision": "r", "max_tokens": 40, "engine": {"kind": "scripted"}})
    return ContinueStage(spec, Continuation(**rule), 0, parts, on_policy)


def candidates(*texts: str, **changes: Any) -> list[dict[str, Any]]:
    return [candidate(text, temperature=0.7, **changes) for text in texts]


def tables(*rows: tuple[Any, Any]) -> dict[str, pa.Table]:
    """Prompts p0, p1, ... and what two models said; None where one failed."""
    made: dict[str, list[Any]] = {name: [] for name in PARTS}
    for at, row in enumerate(rows):
        for name, texts in zip(PARTS, row, strict=True):
            status = error_status("timeout", "late") if texts is None else {"candidates": texts, **OK}
            made[name].append({"id": f"p{at}", **status})
    source = pa.Table.from_pylist([prompt_row(f"p{at}") for at in range(len(rows))], schema=PROMPTS)
    return {"source": source, **{name: pa.Table.from_pylist(made[name], schema=CANDIDATES) for name in PARTS}}


def gathered(last: ContinueStage, engine: Any, given: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """The rows of the final table."""
    parts = (*last.parts, last.name)
    return GatherStage(parts).process(None, {**given, last.name: last.process(engine, given)}).to_pylist()


WORDS = st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), max_size=12)
GAPS = st.sampled_from([" ", "  ", "\n", "\u3000", " \t"])


@given(words=WORDS, data=st.data(), share=st.floats(0.01, 0.99))
def test_the_first_words_stay_exactly_as_they_stand(words: list[str], data: Any, share: float) -> None:
    text = "".join(word + data.draw(GAPS) for word in words).rstrip()
    start = beginning(text, share)
    if len(words) < FEWEST_WORDS:
        assert start == ""
        return
    kept = len(start.split())
    assert text.startswith(start) and start == start.strip()
    assert start.split() == text.split()[:kept] and 1 <= kept < len(words)
    assert kept <= share * len(words) + 1e-9 < kept + 1 + 1e-6 or kept == 1


def test_a_continued_candidate_begins_with_the_words_of_its_parent() -> None:
    given = tables((candidates(LONG), candidates(LONGER, LONG)), (candidates(LONGER), candidates(LONG)))
    rows = gathered(stage(share=0.5), Ear(), given)
    assert [c["origin"] for c in rows[0]["candidates"]] == ["sampled"] * 3 + ["continued"] * 3
    for row in rows:
        continued = [c for c in row["candidates"] if c["origin"] == "continued"]
        assert [c["parent"] for c in continued] == list(range(len(continued)))
        for answer in continued:
            parent = row["candidates"][answer["parent"]]["text"]
            assert answer["text"] == f"{beginning(parent, 0.5)} and so on."
    assert rows[0]["candidates"][4]["text"] == "There is a boat and so on."
    assert {c["seed"] for row in rows for c in row["candidates"] if c["origin"] == "continued"}.__len__() == 5


@pytest.mark.parametrize("see", [False, True])
def test_the_image_is_left_out_unless_the_recipe_says_otherwise(see: bool) -> None:
    engine = Ear()
    stage(images=see).process(engine, tables((candidates(LONG), [])))
    ((request, _),) = engine.requests
    assert request.images == ((png(),) if see else ())
    assert request.messages == (("user", "Describe the image."),) and request.prefix == "The image"


def test_how_it_was_made_is_told() -> None:
    (row,) = stage(max_tokens=2).process(Ear(), tables((candidates(LONG), []))).to_pylist()
    (answer,) = row["candidates"]
    told = ("text", "model", "revision", "temperature", "n_tokens", "finish_reason", "logprob", "on_policy")
    assert [answer[key] for key in told] == ["The image and so", "m", "r", 0.7, 2, "length", -2.0, True]
    engine = Ear()
    replace(stage(temperature=0.0), on_policy=False).process(engine, tables((candidates(LONG), [])))
    ((_, sampling),) = engine.requests
    assert (sampling.temperature, sampling.max_tokens, sampling.n) == (0.0, 40, 1)


def test_what_is_short_or_cut_off_or_of_another_origin_is_not_continued() -> None:
    odd = ({"finish_reason": "length"}, {"origin": "noised"}, {"origin": "given"})
    others = [text for change in odd for text in candidates(LONG, **change)]
    engine = Ear()
    (row,) = gathered(stage(), engine, tables(([*candidates("Yes.", "a b c"), *others], candidates(LONG))))
    assert [(c["origin"], c["parent"]) for c in row["candidates"][-2:]] == [("sampled", None), ("continued", 5)]
    assert len(engine.requests) == 1


def test_a_prompt_with_nothing_to_continue_has_not_failed_and_one_that_failed_has() -> None:
    given = tables((candidates("Yes."), candidates("No.")), (None, None), (None, candidates(LONG)))
    out = stage().process(Ear(), given).to_pylist()
    assert [(row["error_type"], len(row["candidates"] or [])) for row in out] == [(None, 0), ("timeout", 0), (None, 1)]


def test_an_error_fails_its_row_alone_and_the_sampled_answers_stay() -> None:
    given_ = tables((candidates(LONG), candidates(LONGER)), (candidates(LONG), []))
    refusing = Ear(refuse=frozenset({"p0#1"}))
    out = stage().process(refusing, given_).to_pylist()
    assert [row["error_type"] for row in out] == ["refused", None]
    rows = gathered(stage(), refusing, given_)
    assert [(row["status"], len(row["candidates"])) for row in rows] == [("ok", 2), ("ok", 2)]


def test_an_image_that_is_gone_fails_its_row_alone(tmp_path: Path) -> None:
    given_ = tables((candidates(LONG), []), (candidates(LONG), []))
    rows = [prompt_row("p0", images=[{"bytes": None, "path": str(tmp_path / "gone.png")}]), prompt_row("p1")]
    given_["source"] = pa.Table.from_pylist(rows, schema=PROMPTS)
    assert [row["error_type"] for row in stage(images=True).process(Ear(), given_).to_pylist()] == [
        "missing_image",
        None,
    ]


def test_the_result_does_not_depend_on_the_other_rows_of_a_shard() -> None:
    rows = [(candidates(LONG, LONGER), candidates(LONG)), (candidates(LONGER), [])]
    drawing = ScriptedEngine(("one.", "two.", "three.", "four.", "five."))
    together = stage().process(drawing, tables(*rows)).to_pylist()
    assert stage().process(drawing, tables(rows[0])).to_pylist() == together[:1]
    assert together == stage().process(drawing, tables(*rows)).to_pylist()


def test_only_what_changes_the_result_is_an_option() -> None:
    options = stage().options()
    assert options["max_tokens"] == 40 and options == stage(max_tokens=40).options()
    for other in (stage(share=0.4), stage(images=True), stage(temperature=0.1), stage(max_tokens=41), stage(PARTS[:1])):
        assert other.options() != options
    spec = stage().spec.model_copy(update={"n": 3, "temperature": 0.2})
    assert replace(stage(), spec=spec).options() == options


# ----------------------------------------------------------------------------------------------------------- the recipe


def sampled(**rule: Any) -> dict[str, Any]:
    return {"model": "canned", "n": 4, "engine": ENGINE, "continue": rule}


def test_with_one_model_there_are_its_table_the_continued_ones_and_all(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample=sampled()))
    stages = {stage.name: stage.inputs for stage in plan.generation()}
    assert list(stages) == ["source", "sample-canned", "sample-continued", "sample", "score", "pair"]
    assert stages["sample-continued"] == ("source", "sample-canned")
    assert stages["sample"] == ("sample-canned", "sample-continued")
    without = Plan(recipe(tmp_path, sample={**sampled(), "continue": None})).generation()[1]
    assert without.options() == plan.generation()[1].options(), "what is sampled has nothing to do with it"


def test_the_model_to_be_trained_continues_unless_another_is_named(tmp_path: Path) -> None:
    def continuing(train: str | None = None, **rule: Any) -> tuple[str, bool, list[str]]:
        models = [{"model": "a"}, {"model": "b", "max_tokens": 7}, {"model": "a", "noise": {}}]
        changes = {"train": {"model": train}} if train else {}
        stages = Plan(recipe(tmp_path, sample={**sampled(**rule), "models": models}, **changes)).generation()
        (last,) = (stage for stage in stages if isinstance(stage, ContinueStage))
        assert last.spec.noise is None
        return last.spec.model, last.on_policy, [s.spec.model for s in stages if isinstance(s, SampleStage)]

    # Who continues is sampled last: the engine is warm then.
    assert continuing() == ("a", True, ["b", "a", "a"])
    assert continuing("b") == ("b", True, ["a", "a", "b"])
    assert continuing(model="b") == ("b", False, ["a", "a", "b"])
    assert continuing("third") == ("third", True, ["a", "a", "b"])


@pytest.mark.parametrize(
    ("changes", "said_"),
    [
        ({"sample": {"model": "a", "engine": ENGINE}, "pair": {"policy": "continuation"}}, r"add sample\.continue"),
        ({"sample": sampled(share=1)}, r"sample\.continue\.share: .* less than 1"),
        ({"sample": sampled(shar=0.5)}, r"did you mean sample\.continue\.share\?"),
        ({"sample": {"model": "a", "continuation": {}}}, r"did you mean sample\.continue\?"),
        ({"sample": {**sampled(), "noise": {}}}, "no sampled answers to go on from"),
        ({"sample": {"engine": ENGINE, "models": [{"model": "a", "continue": {}}]}}, "beside models, not in an entry"),
    ],
)
def test_what_is_wrong_with_continue_is_said(tmp_path: Path, changes: dict[str, Any], said_: str) -> None:
    with pytest.raises(ConfigError, match=said_):
        recipe(tmp_path, **changes)


def test_a_model_called_continued_is_refused(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample={**sampled(), "model": "continued"}))
    with pytest.raises(ConfigError, match="sample-continued"):
        plan.generation()


def test_the_recipes_of_the_docs_load(tmp_path: Path) -> None:
    snippets = [yaml.safe_load(snippet) for snippet in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)]
    made = [recipe(tmp_path, **snippet) for snippet in snippets if "sample" in snippet]
    assert {made_recipe.pair.policy for made_recipe in made} == {"corrupted_image", "continuation"}


def test_a_run_gives_pairs_by_both_origins(tmp_path: Path, ray_cluster: None) -> None:
    values = recipe(
        tmp_path,
        sample={**sampled(share=0.4), "models": [{}, {"noise": {}}]},
        score={"scorers": ["objects"]},
        pair={"policy": "continuation", "max_length_ratio": 9},
    ).model_dump(mode="json")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))

    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(module.app, [str(path), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    def origins(run: Run) -> set[tuple[str, str]]:
        rows = {row["id"]: row["candidates"] for row in run.table("sample").to_pylist()}
        pairs = [pair for pair in run.table("pair").to_pylist() if pair["reason"] is None]
        return {tuple(rows[pair["id"]][pair[side]]["origin"] for side in ("chosen", "rejected")) for pair in pairs}

    invoke()
    run = Run(tmp_path / "run")
    assert origins(run) == {("sampled", "continued")}
    for row in run.table("sample").to_pylist():
        for answer in row["candidates"]:
            if answer["origin"] == "continued":
                assert answer["text"].startswith(beginning(row["candidates"][answer["parent"]]["text"], 0.4) + " ")
    before = run.table("sample")
    assert "sample" not in pending(invoke("pair.policy=corrupted_image", "--plan"))
    invoke("pair.policy=corrupted_image")
    assert origins(run) == {("sampled", "noised")}
    summary = json.loads((run.path / "summary.json").read_text())
    assert {"sample-canned", "sample-canned-noised-500", "sample-continued", "sample"} <= set(summary["stages"])

    again = pending(invoke("sample.continue.share=0.6", "--plan"))
    assert "sample-continued" in again and "sample-canned" not in again
    invoke(f"output_dir={tmp_path / 'other'}", "shard_size=64")
    other = Run(tmp_path / "other" / "run").table("sample")
    assert sorted(other.to_pylist(), key=str) == sorted(before.to_pylist(), key=str)


def test_examples_of_the_documentation_hold() -> None:
    assert doctest.testmod(continue_).failed == 0
