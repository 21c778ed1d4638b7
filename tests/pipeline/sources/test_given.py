"""Answers that came with the prompts, all the way to pairs: no model, no Ray, and the gates find what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_kit import png

from pipeline.base.errors import ConfigError, InputError
from pipeline.exporting.formats import FORMATS
from pipeline.exporting.write_export import Exported, export
from pipeline.publishing.config import Publish
from pipeline.publishing.publish import publish
from pipeline.recipe.load import make_recipe
from pipeline.recipe.plan import Held, Plan, run_stage
from pipeline.recipe.recipe import Recipe
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage
from pipeline.sources.given_stage import GivenStage
from reward import gates
from reward.text.language import answer_language

GIVEN = {"engine": {"kind": "given"}}
GOOD = "Two boats lie in a small harbour while the sun goes down behind the hills."
WORSE = "A boat is in the harbour, and there is also a large red anchor on the beach."
#: What published pairs were found to have for a rejected answer, in words of our own.
LOOP = "The painter worked in these steps: " + " ".join(
    f"{n}. {('Dry brush', 'Thin wash', 'Glaze')[n % 3]}: the painter then used it to add depth and colour to the sea."
    for n in range(1, 60)
)
PAIRS = {
    "fine": WORSE,
    "nothing": "",
    "word": "сон",
    "loop": LOOP,
    "same": GOOD,
    "foreign": "Две лодки стоят в гавани.",
}
QUESTION = "What can be seen in this picture, and where is it?"


def write(folder: Path, pairs: dict[str, str] = PAIRS, **changes: Any) -> Path:
    """A file of pairs about images of their own. ``changes`` replace keys of its items."""
    items = []
    for number, (name, rejected) in enumerate(pairs.items()):
        (folder / f"{name}.png").write_bytes(png(number))
        question = {"from": "human", "value": f"<image> {QUESTION}"}
        items.append(
            {
                "id": name,
                "image": f"{name}.png",
                "conversations": [question, {"from": "gpt", "value": GOOD}],
                "rejected_conversations": [question, {"from": "gpt", "value": rejected}],
                **changes,
            }
        )
    (folder / "pairs.json").write_text(json.dumps(items))
    return folder / "pairs.json"


def recipe(tmp: Path, path: Path, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "run",
        "output_dir": str(tmp / "runs"),
        "shard_size": 2,
        "source": {"kind": "pds", "path": str(path)},
        "sample": GIVEN,
        "score": {"scorers": ["given"]},
        "pair": {"weights": {"given": 1}, "margin": 0.5},
    }
    return make_recipe({**values, **changes})


def ran(plan_recipe: Recipe, monkeypatch: pytest.MonkeyPatch | None = None) -> Run:
    if monkeypatch is not None:
        monkeypatch.setattr("pipeline.running.executor.start_ray", lambda: pytest.fail("Ray was started"))
    run = Run(plan_recipe.run_dir)
    with Executor(run, max_failure_rate=1.0) as executor:
        for stage in Plan(plan_recipe).generation():
            run_stage(executor, stage, "if-possible")
    return run


def by_source(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """The rows of a stage by the place of their prompt in the file."""
    ids = {row["id"]: row["source"].partition(":")[2] for row in run.table("source").to_pylist()}
    return {ids[row["id"]]: row for row in run.table(stage).to_pylist()}


def test_the_files_answers_become_candidates_and_the_chosen_one_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ran(recipe(tmp_path, write(tmp_path)), monkeypatch)
    candidates = by_source(run, "sample")
    for number, rejected in enumerate(PAIRS.values(), 1):
        assert [c["text"] for c in candidates[str(number)]["candidates"]] == [GOOD, rejected]
    told = {key: value for key, value in candidates["1"]["candidates"][0].items() if value is not None}
    assert told == {"text": GOOD, "origin": "given"}  # no model, seed or log-prob: nobody sampled it
    (score,) = by_source(run, "score")["1"]["scores"]
    assert (score["name"], score["values"]) == ("given", [1.0, 0.0])
    pair = by_source(run, "pair")["1"]
    assert (pair["chosen"], pair["rejected"], pair["reason"]) == (0, 1, None)


@pytest.mark.parametrize("side", ["conversations", "rejected_conversations"])
@pytest.mark.parametrize("half", ["\ud83d", "\ude00"])
def test_an_answer_with_half_of_a_surrogate_pair_is_a_failed_row(tmp_path: Path, side: str, half: str) -> None:
    path = write(tmp_path, {"fine": WORSE, "half": WORSE})
    items = json.loads(path.read_text())
    items[1][side][-1]["value"] = "a" + half
    path.write_text(json.dumps(items))
    run = ran(recipe(tmp_path, path))
    first, second = sorted(run.table("source").to_pylist(), key=lambda row: row["status"] != "ok")
    assert first["status"] == "ok" and second["error_type"] == "malformed_row"
    assert f"item 2: the answer of `{side}` has half of a surrogate pair at character 1" in second["error"]
    texts = [[c["text"] for c in row["candidates"] or ()] for row in run.table("sample").to_pylist()]
    assert sorted(texts) == [[], [GOOD, WORSE]]


def test_degenerate_answers_do_not_become_pairs_and_each_has_a_name(tmp_path: Path) -> None:
    run = ran(recipe(tmp_path, write(tmp_path), pair={"weights": {"given": 1}, "margin": 0.5, "min_words": 3}))
    made = {number for number, row in by_source(run, "pair").items() if row["chosen"] is not None}
    assert made == {"1"} and by_source(run, "pair")["5"]["reason"] == "identical"
    texts = [[c["text"] for c in row["candidates"]] for _, row in sorted(by_source(run, "sample").items())]
    stopped = [[gates.stopping_gate(text, None, answer_language(QUESTION), min_words=3) for text in of] for of in texts]
    assert [of[0] for of in stopped] == [None] * 6
    assert [of[1] for of in stopped] == [None, "empty", "too_short", "repetition", None, "wrong_script"]


def test_an_image_that_is_gone_is_a_failed_row_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path, {"fine": WORSE, "lost": WORSE})
    (tmp_path / "lost.png").unlink()
    run = ran(recipe(tmp_path, path))
    for stage in ("sample", "score", "pair"):
        rows = by_source(run, stage)
        assert (rows["1"]["status"], rows["2"]["error_type"]) == ("ok", "missing_image")


def test_a_file_that_says_something_else_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = ran(recipe(tmp_path, path)).table("sample")
    assert ran(recipe(tmp_path, path)).table("sample").equals(before)
    write(tmp_path, {**PAIRS, "fine": "Another one."})
    after = by_source(ran(recipe(tmp_path, path)), "sample")
    assert after["1"]["candidates"][1]["text"] == "Another one."


def test_a_prompt_that_the_file_no_longer_has_fails_alone(tmp_path: Path) -> None:
    made = recipe(tmp_path, write(tmp_path))
    run = ran(made)
    write(tmp_path, {"fine": WORSE})
    assert made.source.kind == "pds"
    tables = {"source": run.table("source")}
    rows = GivenStage(made.source).process(None, tables).to_pylist()
    places = dict(zip(tables["source"]["id"].to_pylist(), tables["source"]["source"].to_pylist(), strict=True))
    assert {places[row["id"]]: row["error_type"] for row in rows} == {
        "pairs.json:1": None, **{f"pairs.json:{number}": "no_given_answer" for number in range(2, 7)}
    }  # fmt: skip


@pytest.mark.parametrize("kept", ["embed", "reference"])
def test_what_was_imported_is_exported_as_it_came(kept: str, tmp_path: Path) -> None:
    run = ran(recipe(tmp_path, write(tmp_path)))
    publish(run, Publish(images=kept), lambda _: "")  # type: ignore[arg-type]
    out = tmp_path / "pairs" / "pairs.json"
    assert export(FORMATS["pds"], run.path, out.parent) == Exported(1, 1, {})
    (item,), first = json.loads(out.read_text()), json.loads((tmp_path / "pairs.json").read_text())[0]
    assert (out.parent / item["image"]).read_bytes() == (tmp_path / first["image"]).read_bytes()
    for side in ("conversations", "rejected_conversations"):
        assert item[side][1] == first[side][1] and item[side][0]["value"] == f"<image>\n{QUESTION}"
    (tmp_path / "fine.png").unlink()
    if kept == "reference":
        with pytest.raises(InputError, match=r"fine\.png cannot be read"):
            export(FORMATS["pds"], run.path, tmp_path / "again")
    again = recipe(tmp_path, out, name="again")
    assert [row["chosen"] for row in ran(again).table("pair").to_pylist()] == [0]
    assert ran(again).table("source")["id"].to_pylist()[0] in run.table("source")["id"].to_pylist()


def test_models_may_be_asked_beside_the_given_answers(tmp_path: Path) -> None:
    sample = {"models": [GIVEN, {"model": "org/vlm", "n": 3}]}
    plan = Plan(recipe(tmp_path, write(tmp_path), sample=sample))
    stages = plan.generation()
    assert [stage.name for stage in stages][:4] == ["source", "sample-given", "sample-org-vlm", "sample"]
    assert isinstance(stages[1], GivenStage) and isinstance(stages[2], SampleStage)
    assert plan.base().model == "org/vlm" and stages[2].on_policy


def test_given_answers_alone_leave_the_model_to_train(tmp_path: Path) -> None:
    held = Held(lambda _: iter(()), {}, 16)
    made = recipe(tmp_path, write(tmp_path), train={"model": "org/vlm"}, evaluate={})
    stage = next(stage for stage in Plan(made, held).generation() if stage.name == "eval-before")
    assert isinstance(stage, SampleStage) and (stage.spec.model, stage.spec.engine.kind) == ("org/vlm", "vllm")
    with pytest.raises(ConfigError, match=r"train\.model: missing; with sample\.engine\.kind=given"):
        recipe(tmp_path, write(tmp_path), evaluate={})


def test_given_answers_need_a_source_that_brings_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.kind=scenes come without; use source\.kind=pds"):
        recipe(tmp_path, write(tmp_path), source={"scenes": 3})


@pytest.mark.parametrize(
    "values", [GIVEN, {"models": [GIVEN]}, {"model": "given", **GIVEN}, {"model": "m", "models": [GIVEN, {"n": 2}]}]
)
def test_where_no_model_is_asked_none_needs_a_name(values: dict[str, Any]) -> None:
    assert Sample.model_validate(values).each()[0].model == "given"


def test_the_recipe_on_the_page_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs/exports.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    made = make_recipe({"name": "x", **yaml.safe_load(snippet)})
    assert made.source.kind == "pds" and made.score.scorers[0] == "given"
    assert "min_words: 3" in page and made.pair.min_words == 3
