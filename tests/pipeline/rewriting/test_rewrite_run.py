"""A recipe that rewrites: what is accepted, which stages it comes to, which pairs they give, and a whole small run."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stage_kit import TEXTS, candidate, pending, recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.base.errors import ConfigError
from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, SCORES
from pipeline.pairing.config import Pair
from pipeline.pairing.rule import make_pairs
from pipeline.pairing.stage import pairs_of
from pipeline.recipe.load import load_recipe, make_recipe
from pipeline.recipe.plan import Held, Plan, group, stage_groups
from pipeline.rewriting import steps as rewritten
from pipeline.rewriting import verify
from pipeline.running.store import Run
from pipeline.sampling.stage import SampleStage
from pipeline.scenes.vocabulary import OBJECTS
from reward.text.types import Lineage

DOCS = Path(__file__).parents[3] / "docs" / "ha_dpo.md"
WEIGHTS = {"objects.hallucinated": -1.0, "correctness": 1.0}
PAIRING: dict[str, Any] = {"policy": "rewritten", "weights": WEIGHTS, "margin": 0.5, "max_length_ratio": 9}
SCORE: dict[str, Any] = {"scorers": ["objects", "correctness"]}
ALL: dict[str, Any] = {
    "inject": {"kinds": ["object"]},
    "restyle": {"paraphrases": 2},
    "questions": {"per_image": 3},
}
SERVER = {"kind": "openai", "base_url": "http://host/v1"}
HELD = Held(lambda _: iter(()), {}, 16)


def rewriting(tmp: Path | str, rewrite: dict[str, Any] | None = None, **changes: Any) -> Any:
    return recipe(tmp, **{"rewrite": ALL if rewrite is None else rewrite, "pair": PAIRING, "score": SCORE, **changes})


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.generation()]


# ------------------------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize(
    ("rewrite", "reason"),
    [
        ({"correct": None}, r"rewrite does nothing; add correct"),
        ({"correct": None, "questions": {}, "restyle": {}}, "restyle has no two sides"),
        ({"vocabulary": "words.json", "restyle": {}}, "built-in world only; use by: model"),
        ({"detect": {"by": "judge"}}, r"by=judge asks a model; name it"),
        ({"detect": {"by": "facts", "model": "m"}}, "by=facts does not read model"),
        ({"detect": {"by": "judge", "model": "m", "template": "So {claim}?"}}, "by=judge does not read template"),
        ({"detect": {"by": "claims", "model": "m", "complete": False}}, "by=claims does not read complete"),
        ({"detect": {"by": "claims", "model": "m", "low": 0.7}}, r"low=0\.7 is above high=0\.5"),
        ({"detect": {"by": "judge", "model": "m", "blind": True, "facts": False}}, "can only guess"),
        ({"correct": {"by": "model"}}, "by=model asks a model"),
        ({"correct": {"by": "model", "model": "m", "absent": "replace"}}, "by=model does not read absent"),
        ({"restyle": {"by": "model", "model": "m", "temperature": 0}}, "greedy answers are all the same"),
        ({"inject": {"kinds": ["mood"]}}, r"rewrite\.inject\.kinds\.0: .*'mood'"),
        ({"inject": {"kinds": []}}, r"rewrite\.inject\.kinds"),
        ({"detekt": {}}, r"rewrite\.detekt: unknown key .*did you mean rewrite\.detect\?"),
        ({"questions": {"per_imag": 2}}, r"did you mean rewrite\.questions\.per_image\?"),
        ({"detect": {"by": "judge", "model": "m", "engine": {"kind": "opnai"}}}, r"rewrite\.detect\.engine\.kind"),
    ],
)
def test_what_is_wrong_with_rewrite_is_said(tmp_path: Path, rewrite: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        rewriting(tmp_path, rewrite)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rewrite": None}, r"pair\.policy=rewritten needs rewritten texts; add rewrite"),
        ({"pair": {"policy": "rewritten"}}, r"add pair\.weights such as"),
        ({"sample": {"model": "m", "engine": {"kind": "scripted"}, "continue": {}}}, "set one of them to null"),
        (
            {"sample": {"engine": {"kind": "given"}}, "source": {"kind": "pds", "path": "a.json"}},
            r"set rewrite\.questions=null",
        ),
    ],
)
def test_what_does_not_go_with_rewriting_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        recipe(tmp_path, **{"rewrite": ALL, "pair": PAIRING, "score": SCORE, **changes})


def test_a_recipe_that_rewrites_survives_dumping_and_loading(tmp_path: Path) -> None:
    judged = {"detect": {"by": "judge", "model": "m", "engine": SERVER}, "correct": {"by": "model", "model": "m"}}
    for rewrite in (ALL, judged, {"detect": {"by": "claims", "model": "m", "template": "Is there {claim}?"}}):
        loaded = rewriting(tmp_path, rewrite)
        assert make_recipe(loaded.model_dump(mode="json")) == loaded


def test_the_recipes_of_the_docs_load() -> None:
    snippets = [yaml.safe_load(snippet) for snippet in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)]
    whole = [make_recipe(snippet) for snippet in snippets if "source" in snippet]
    assert [loaded.rewrite is not None and loaded.rewrite.detect.by for loaded in whole] == ["judge"]
    (part,) = (snippet for snippet in snippets if "source" not in snippet)
    assert rewriting("o", part["rewrite"]).rewrite is not None


def test_the_built_in_recipe_does_all_of_it() -> None:
    loaded = load_recipe("ha_dpo")
    assert loaded.rewrite is not None and None not in (
        loaded.rewrite.inject,
        loaded.rewrite.restyle,
        loaded.rewrite.questions,
    )
    assert loaded.pair.policy == "rewritten" and loaded.train is not None and loaded.train["draw"]


# ------------------------------------------------------------------------------------------------------- the stages


def test_every_step_is_a_stage_and_the_last_two_are_what_scoring_reads(tmp_path: Path) -> None:
    plan = Plan(rewriting(tmp_path), HELD)
    assert names(plan) == [
        *("prompts", "sample-described", "eval-source", "eval-before", "detect", "cooccurrence"),
        *("sample-corrected", "sample-injected", "sample-restyled", "sample-rewritten"),
        *("questions", "sample-asked", "sample-answered", "source", "sample", "score", "pair"),
    ]
    stages = {stage.name: stage for stage in plan.generation()}
    assert stages["source"].inputs == ("prompts", "questions") and stages["source"].schema == PROMPTS
    assert stages["sample"].inputs == ("sample-rewritten", "sample-answered") and stages["sample"].schema == CANDIDATES
    asks = stages["sample-asked"]
    assert isinstance(asks, SampleStage) and (asks.spec.n, asks.spec.temperature, asks.on_policy) == (1, 0.0, True)


def test_without_questions_the_prompts_are_the_source(tmp_path: Path) -> None:
    plan = Plan(rewriting(tmp_path, {}))
    assert names(plan) == ["source", "sample-described", "detect", "sample-corrected", "sample", "score", "pair"]
    plain = Plan(rewriting(tmp_path, {"correct": None, "inject": {}}))
    assert names(plain)[2:-2] == ["detect", "cooccurrence", "sample-injected", "sample"]


def test_without_rewriting_nothing_is_different(tmp_path: Path) -> None:
    assert names(Plan(recipe(tmp_path))) == ["source", "sample", "score", "pair"]
    assert Plan(recipe(tmp_path)).rewriting() is None


def test_whether_facts_are_complete_counts_for_all_rules_over_them(tmp_path: Path) -> None:
    def told(complete: bool) -> dict[str, bool]:
        plan = Plan(rewriting(tmp_path, {**ALL, "detect": {"complete": complete}}))
        return {s.name: s.options()["complete"] for s in plan.generation() if "complete" in s.options()}

    assert told(False) == dict.fromkeys(("detect", "sample-corrected", "sample-injected", "questions"), False)
    assert told(True) == dict.fromkeys(told(False), True)


def test_several_models_describe_and_the_one_that_answers_is_sampled_last(tmp_path: Path) -> None:
    models = [{"model": "a"}, {"model": "b"}]
    engine = {"kind": "scripted", "texts": TEXTS}
    sample = {"n": 2, "engine": engine, "models": models}
    stages = names(Plan(rewriting(tmp_path, sample=sample, train={"model": "a"})))
    assert stages[:4] == ["prompts", "sample-b", "sample-a", "sample-described"]
    with pytest.raises(ConfigError, match="sample-corrected"):
        names(Plan(rewriting(tmp_path, sample={**sample, "models": [{"model": "a"}, {"model": "corrected"}]})))


def test_a_model_that_is_asked_about_texts_has_a_stage_of_its_own(tmp_path: Path) -> None:
    judged = {"detect": {"by": "judge", "model": "j", "engine": {"kind": "scripted"}}}
    stages = {stage.name: stage for stage in Plan(rewriting(tmp_path, judged)).generation()}
    assert list(stages)[1:4] == ["sample-described", "detect-asked", "detect"]
    assert stages["detect"].inputs == ("source", "sample-described", "detect-asked")


def test_the_stages_between_sampling_and_scoring_are_called_rewrite(tmp_path: Path) -> None:
    rewriting_ = Plan(rewriting(tmp_path)).rewriting()
    assert rewriting_ is not None
    groups = {name: group(name, rewriting_.names()) for name in names(Plan(rewriting(tmp_path)))}
    assert {name for name, of in groups.items() if of == "rewrite"} == rewriting_.names()
    assert groups["prompts"] == "source" and groups["sample-described"] == "sample" and groups["score"] == "score"
    assert stage_groups("rewrite") == {"rewrite"} and rewritten.TABLES - {"sample-described"} <= rewriting_.names()


# -------------------------------------------------------------------------------------------------------- the policy

#: What a row of rewritten texts is: origin, parent, how many objects it makes up.
FAMILY = [
    ("sampled", None, 1),
    ("corrected", 0, 0),
    ("injected", 1, 2),
    ("restyled", 0, 1),
    ("restyled", 1, 0),
    ("sampled", None, 0),
]


TEXTS_OF = ["a sun", "a boat", "a cup", "a king", "a queen", "a cow", "a cat"]


def paired(
    family: list[tuple[str, int | None, float]], texts: list[str] = TEXTS_OF, **changes: Any
) -> set[tuple[int, int]]:
    made = [
        {**candidate(text), "origin": origin, "parent": parent}
        for text, (origin, parent, _) in zip(texts, family, strict=False)
    ]
    scores = [{"name": "objects.hallucinated", "version": "1", "values": [float(wrong) for *_, wrong in family]}]
    sample = [{"id": "p", "candidates": made, **OK}]
    score = [{"id": "p", "scores": scores, **OK}]
    rule = Pair(**{**PAIRING, "weights": {"objects.hallucinated": -1.0}, **changes})
    rows = make_pairs(sample, score, rule)
    tables = (pa_table(sample, CANDIDATES), pa_table(score, SCORES))
    assert pairs_of(*tables, rule).to_pylist() == pa_table(rows, PAIRS).to_pylist()
    return {(row["chosen"], row["rejected"]) for row in rows if row.get("chosen") is not None}


def pa_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def test_texts_meet_by_how_they_were_made() -> None:
    made_pairs = paired(FAMILY)
    assert {(1, 0), (1, 2), (4, 3)} <= made_pairs
    assert not any(5 in two for two in made_pairs), "a text that nothing was made from meets nobody"


def test_a_pair_whose_score_did_not_move_the_right_way_is_none() -> None:
    worse = [("sampled", None, 1.0), ("corrected", 0, 1.0), ("injected", 1, 1.0)]
    assert paired(worse) == set()
    assert paired([("sampled", None, 1.0), ("corrected", 0, 0.0)], margin=2.0) == set()
    assert paired([("sampled", None, 0.0), ("corrected", 0, 1.0)]) == set()


def test_no_two_sampled_texts_meet_however_far_apart() -> None:
    assert paired([("sampled", None, 5.0), ("sampled", None, 0.0)]) == set()


@st.composite
def families(draw: Any) -> list[tuple[str, int | None, float]]:
    """Rows as the stages make them: nothing is corrected or injected into what is restyled."""
    made: list[tuple[str, int | None, float]] = []
    for number in range(draw(st.integers(2, len(TEXTS_OF)))):
        origin = draw(st.sampled_from(["sampled", "corrected", "injected", "restyled"])) if number else "sampled"
        able = [at for at, lineage in enumerate(made) if origin == "restyled" or lineage[0] != "restyled"]
        parent = None if origin == "sampled" else draw(st.sampled_from(able))
        made.append((origin, parent, draw(st.sampled_from([0.0, 1.0, 2.0]))))
    return made


@given(family=families(), gone=st.sets(st.integers(0, 6), max_size=3))
def test_pairs_follow_from_lineage_and_the_score_agrees(
    family: list[tuple[str, int | None, float]], gone: set[int]
) -> None:
    texts = ["..." if at in gone else text for at, text in enumerate(TEXTS_OF)]  # a gate stops these
    made_pairs = paired(family, texts)
    related = set(verify.pairs([Lineage(origin, parent) for origin, parent, _ in family]))
    agreeing = {two for two in related if family[two[0]][2] < family[two[1]][2]}
    assert made_pairs <= {two for two in agreeing if not gone & set(two)}
    # Both ways round, two texts would be one pair; the score leaves one.
    assert gone or {frozenset(two) for two in agreeing} == {frozenset(two) for two in made_pairs}


# ------------------------------------------------------------------------------------------------------- a whole run

DESCRIPTIONS = [
    f"There is a red {first} and a blue {second}. You can also see a green {third}."
    for first, second, third in zip(OBJECTS, OBJECTS[7:], OBJECTS[13:], strict=False)
]


def test_a_run_rewrites_asks_and_pairs_and_does_nothing_twice(tmp_path: Path, ray_cluster: None) -> None:
    values = rewriting(
        tmp_path,
        source={"scenes": 12},
        sample={
            "model": "canned",
            "n": 3,
            "engine": {"kind": "scripted", "texts": [*DESCRIPTIONS, *("Yes", "No") * 6]},
        },
    ).model_dump(mode="json")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))

    def invoke(*arguments: object) -> str:
        result = CliRunner().invoke(module.app, [str(path), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.output

    assert "facts.wrong" in invoke("--preview", "2", "score.scorers=[objects,facts,correctness]")
    run = Run(tmp_path / "run")
    assert not run.shards("prompts"), "a preview touches nothing"
    assert "report:" not in invoke("--stages", "source,sample"), "there is no source to tell of yet"
    invoke("--stages", "source,sample,rewrite")
    assert run.shards("source") == run.shards("sample") and not run.shards("score")
    invoke()
    source = {row["id"]: row for row in run.table("source").to_pylist()}
    assert set(source) == {row["id"] for name in ("prompts", "questions") for row in run.table(name).to_pylist()}
    texts = {row["id"]: row["candidates"] for row in run.table("sample").to_pylist()}
    made = [pair for pair in run.table("pair").to_pylist() if pair["chosen"] is not None]
    origins = Counter()
    for pair in made:
        better, worse = (texts[pair["id"]][pair[side]] for side in ("chosen", "rejected"))
        origins[better["origin"], worse["origin"]] += 1
        assert pair["margin"] >= 0.5 and better["text"] != worse["text"]
    assert {("corrected", "sampled"), ("corrected", "injected"), ("restyled", "restyled")} <= set(origins)
    assert {source[pair["id"]]["facts"]["answer"] is None for pair in made} == {True, False}
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["stages"]["sample-corrected"]["extras"]["corrected"] > 0 and summary["pairs"] == len(made)

    assert "nothing is left to do" in invoke("--plan")
    again = pending(invoke("rewrite.correct.absent=replace", "--plan"))
    assert "absent: remove -> replace" in again["sample-corrected"] and "sample-described" not in again
    invoke(f"output_dir={tmp_path / 'other'}", "shard_size=64")
    other = Run(tmp_path / "other" / "run")
    for name in ("source", "sample", "pair"):
        first, second = (sorted(each.table(name).to_pylist(), key=str) for each in (run, other))
        assert first == second, name
