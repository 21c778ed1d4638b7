"""Which stages the scores of a recipe take, and how their tables come together in one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from stage_kit import TEXTS, candidate, generated, prompt_row, recipe

from pipeline.base.errors import ConfigError, EngineError
from pipeline.base.tables import CANDIDATES, OK, PROMPTS, SCORES, VERDICTS, error_status
from pipeline.engines.protocol import Request
from pipeline.engines.scripted import ScriptedEngine
from pipeline.pairing.config import Pair
from pipeline.pairing.rule import make_pairs
from pipeline.recipe.load import make_recipe
from pipeline.recipe.plan import Held, Plan, group
from pipeline.running.executor import process_shard
from pipeline.running.stage import Dispensable
from pipeline.sampling.config import Sample, VllmOptions
from pipeline.scoring.ask import AskStage
from pipeline.scoring.config import Asked, Claims, Judge, Score
from pipeline.scoring.scorers import open_scorers
from pipeline.scoring.stage import ModelScoreStage, ScoreStage, stages

ENGINE = {"kind": "scripted", "texts": TEXTS}
SUN, BOTH = "A sun.", "A sun and a cup."
FACTS = {"objects": [{"name": "sun"}]}
#: A judge and claims that need no model.
JUDGED: dict[str, Any] = {
    "judge": {"model": "j", "criteria": ["coherence"], "engine": {"kind": "scripted", "texts": ["Score: 7"]}},
    "claims": {"model": "c", "vocabulary": "scenes", "engine": {"kind": "scripted", "texts": ["Yes"]}},
}
MINIMAL: dict[str, Any] = {"name": "x", "source": {"scenes": 3}, "sample": {"model": "m"}}
HELD = Held(lambda _: iter(()), {}, 16)


def spec(*scorers: str, **groups: Any) -> Score:
    return Score.model_validate({"scorers": list(scorers), **JUDGED, **groups})


def sampled(**values: Any) -> Sample:
    return Sample.model_validate({"model": "canned", "n": 2, "engine": ENGINE, **values})


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.generation()]


def tables(*ids: str) -> dict[str, pa.Table]:
    texts = [candidate(SUN), candidate(BOTH)]
    return {
        "source": pa.Table.from_pylist([prompt_row(id, facts=FACTS) for id in ids], schema=PROMPTS),
        "sample": pa.Table.from_pylist([{"id": id, "candidates": texts, **OK} for id in ids], schema=CANDIDATES),
    }


def stored(name: str, rows: dict[str, list[float] | None]) -> pa.Table:
    """A table of one score; None for a row that failed."""
    return pa.Table.from_pylist(
        [
            {"id": id, **error_status("broken", f"{name} of {id}")}
            if values is None
            else {"id": id, "scores": [{"name": name, "version": "9", "values": values}], **OK}
            for id, values in rows.items()
        ],
        schema=SCORES,
    )


# ------------------------------------------------------------------------------------------------------ which stages


def test_formulas_alone_are_one_stage_whose_fingerprint_is_what_it_was(tmp_path: Path) -> None:
    assert names(Plan(recipe(tmp_path))) == ["source", "sample", "score", "pair"]
    stage = ScoreStage(Score(scorers=("objects", "correctness")))
    assert stage.inputs == ("source", "sample")
    assert stage.options() == {"scorers": {scorer.name: scorer.version for scorer in open_scorers(stage.spec)}}


def test_a_model_in_process_has_a_stage_of_its_own_and_one_that_is_asked_another(tmp_path: Path) -> None:
    scorers = ["claims", "objects", "clip", "judge"]
    plan = Plan(recipe(tmp_path, score={"scorers": scorers, **JUDGED}, pair={"weights": {"claims.true": 1}}))
    assert names(plan) == ["source", "sample", "ask-claims", "ask-judge", "score-clip", "score", "pair"]
    assert {group(name) for name in names(plan)[2:-1]} == {"score"}
    score = plan.generation()[-2]
    assert score.inputs == ("source", "sample", "ask-claims", "ask-judge", "score-clip")
    assert list(score.options()["scorers"]) == scorers
    assert score.options()["scorers"]["judge"].endswith(":scripted:j")


def test_a_judge_that_is_also_sampled_is_sampled_last_and_asked_first(tmp_path: Path) -> None:
    models = {"n": 2, "engine": ENGINE, "models": [{"model": "j"}, {"model": "other"}]}
    judged = {"judge": {"model": "j"}, "claims": {**JUDGED["claims"], "model": "far"}}
    plan = Plan(recipe(tmp_path, sample=models, score={"scorers": ["claims", "judge"], **judged},
                       pair={"weights": {"judge.coherence": 1}}), HELD)  # fmt: skip
    first, second, *rest = [name for name in names(plan) if not name.startswith("eval-")][1:]
    assert (first, second, rest) == ("sample-other", "sample-j", ["sample", "ask-judge", "ask-claims", "score", "pair"])
    by_name = {stage.name: stage for stage in plan.generation()}
    assert by_name["ask-judge"].worker == by_name["sample-j"].worker  # type: ignore[union-attr]
    assert by_name["sample"].inputs == ("sample-j", "sample-other")  # the candidates keep the recipe's order


def test_without_an_engine_a_judge_is_asked_as_it_is_sampled_and_any_other_through_vllm() -> None:
    same = sampled(model="m", revision="r", max_image_pixels=9, system_prompt="Be brief.", max_tokens=5, top_p=0.5)
    judge = Asked(model="m", revision="r", max_tokens=40).spec([sampled(), same])
    assert (judge.engine, judge.max_image_pixels) == (same.engine, 9)
    assert (judge.n, judge.temperature, judge.max_tokens, judge.top_p, judge.system_prompt) == (1, 0.0, 40, 1.0, None)
    assert Asked(model="m").spec([same]).engine == VllmOptions()  # of another revision
    explicit = Asked.model_validate({"model": "m", "revision": "r", "engine": {"kind": "scripted"}}).spec([same])
    assert explicit.max_image_pixels is None and explicit.engine != same.engine


# -------------------------------------------------------------------------------------------------- one table of all


def merged(score: Score, given: dict[str, pa.Table]) -> list[dict[str, Any]]:
    made = stages(score, [sampled()], seed=0)
    for stage in made:
        if isinstance(stage, AskStage):
            opened = stage.worker.open()
            assert isinstance(opened, ScriptedEngine)
            given[stage.name] = stage.process(opened, given)
    (last,) = made[-1:]
    assert set(last.inputs) <= set(given)
    return last.process(None, given).to_pylist()


def values(row: dict[str, Any]) -> dict[str, list[float | None]]:
    return {score["name"]: score["values"] for score in row["scores"]}


def test_the_scores_stand_in_the_recipes_order_whoever_computed_them() -> None:
    given = {**tables("a", "b"), "score-clip": stored("clip.cosine", {"b": [0.3, 0.4], "a": [0.1, 0.2]})}
    a, b = merged(spec("judge", "clip", "objects", "claims", "correctness"), given)
    assert list(values(a))[:3] == ["judge.coherence", "clip.cosine", "objects.mentions"]
    assert list(values(a))[-5:-2] == ["claims.true", "claims.lowest", "claims.count"]
    assert (values(a)["clip.cosine"], values(b)["clip.cosine"]) == ([0.1, 0.2], [0.3, 0.4])
    assert values(a)["judge.coherence"] == [7.0, 7.0] and values(a)["claims.count"] == [1.0, 2.0]
    assert values(a)["claims.true"] == [pytest.approx(0.9)] * 2
    versions = {score["name"]: score["version"] for score in a["scores"]}
    assert versions["clip.cosine"] == "9" and versions["claims.true"].endswith(":scripted:c")


def test_formulas_have_the_same_values_beside_others_as_alone() -> None:
    given = {**tables("a"), "score-clip": stored("clip.cosine", {"a": [0.1, 0.2]})}
    alone = ScoreStage(spec("objects", "correctness")).process(None, tables("a")).to_pylist()[0]["scores"]
    (row,) = merged(spec("objects", "clip", "correctness"), given)
    assert [score for score in row["scores"] if score["name"] != "clip.cosine"] == alone


def test_a_row_that_failed_in_one_table_lacks_what_it_would_say_and_keeps_the_reason() -> None:
    given = {**tables(*"abcd"), "score-clip": stored("clip.cosine", {"a": [0, 0], "b": None, "c": None, "d": [1, 1]})}
    sample = given["sample"].to_pylist()
    sample[2] = {"id": "c", **error_status("timeout", "sample of c")}
    given["sample"] = pa.Table.from_pylist(sample, schema=CANDIDATES)
    rows = merged(spec("objects", "clip"), given)
    assert [(row["id"], row["error_type"], row["error"]) for row in rows] == [
        ("a", None, None), ("b", None, None), ("c", "timeout", "sample of c"), ("d", None, None),
    ]  # fmt: skip
    assert rows[1]["unknown"] == [
        {"scorer": "clip", "failed": True, "error_type": "broken", "error": "clip.cosine of b"}
    ]
    assert values(rows[1]) == {name: numbers for name, numbers in values(rows[0]).items() if name != "clip.cosine"}
    assert rows[2]["scores"] is None and values(rows[3])["clip.cosine"] == [1.0, 1.0]


def test_verdicts_that_could_not_be_had_or_read_are_not_known() -> None:
    given = tables("a", "b", "c")
    made = stages(spec("claims", "objects"), [sampled()], seed=0)
    ask = made[0]
    assert isinstance(ask, AskStage)
    verdicts = ask.process(ask.worker.open(), given).to_pylist()
    verdicts[1]["verdicts"][0] |= {"p_yes": None, "error": "unreadable: P(yes) + P(no) = 0.001"}
    verdicts[2] = {"id": "c", **error_status("timeout", "slow")}
    given[ask.name] = pa.Table.from_pylist(verdicts, schema=VERDICTS)
    a, b, c = made[-1].process(None, given).to_pylist()
    assert a["unknown"] is None and None not in values(a)["claims.true"]
    assert values(b)["claims.true"][0] is None and values(b)["claims.true"][1] is not None
    assert [(note["failed"], note["error_type"]) for note in b["unknown"]] == [(False, "unreadable")]
    assert "of 3 verdicts" in b["unknown"][0]["error"] and values(b)["claims.count"] == [1.0, 2.0]
    assert [(note["failed"], note["error_type"]) for note in c["unknown"]] == [(True, "timeout")]
    assert {name: numbers for name, numbers in values(c).items() if name.startswith("claims")} == {
        f"claims.{name}": [None, None] for name in ("true", "lowest", "count")
    }


@pytest.mark.parametrize("scorer", ["reward_model", "likelihood"])
def test_a_text_that_a_model_cannot_read_has_a_value_that_is_not_known(scorer: str) -> None:
    """Where no text of a prompt fitted into the model's context, its pair was made by what else is weighed."""
    group = {"reward_model": {"model": "scenes-reward"}, "likelihood": {"model": "scenes-vlm"}}[scorer]
    score = Score.model_validate({"scorers": ["objects", scorer], scorer: group})
    numbers = {"a": [0.5, 1.5], "b": [None, None], "c": [0.5, None], "d": None}
    given = {**tables(*"abcd"), f"score-{scorer}": stored(scorer, numbers)}
    rows = merged(score, given)
    assert [[(note["failed"], note["error_type"]) for note in row["unknown"] or ()] for row in rows] == [
        [], [(False, "too_long")], [(False, "too_long")], [(True, "broken")],
    ]  # fmt: skip
    assert ScoreStage(score).extras(pa.Table.from_pylist(rows, schema=SCORES)) == {
        f"{scorer}.too_long": 2, f"{scorer}.broken": 1,
    }  # fmt: skip
    rule = Pair(weights={scorer: 1.0, "objects.mentions": 1.0}, margin=0.1, max_length_ratio=3)
    pairs = make_pairs(given["sample"].to_pylist(), rows, rule)
    assert [pair.get("reason") for pair in pairs] == [None, "no_valid_candidate", "no_valid_candidate", "failed"]


def test_a_scorer_that_nobody_weighs_is_dispensable(tmp_path: Path) -> None:
    def spared(**pair: Any) -> set[str]:
        plan = Plan(recipe(tmp_path, score={"scorers": ["claims", "objects", "clip", "judge"], **JUDGED}, pair=pair))
        return {stage.name for stage in plan.generation() if isinstance(stage, Dispensable) and stage.dispensable}

    assert spared(weights={"objects.covered": 1}) == {"ask-claims", "ask-judge", "score-clip"}
    assert spared(weights={"objects.covered": 1, "claims.true": 0}) == {"ask-claims", "ask-judge", "score-clip"}
    vetoes = {"judge.coherence": {"below": 5}}
    assert spared(weights={"clip.cosine": 1}, vetoes=vetoes) == {"ask-claims"}
    assert not any(stage.dispensable for stage in stages(spec("clip", "claims"), [sampled()], 0)[:2])  # type: ignore


def test_a_row_that_breaks_a_formula_lacks_its_scores_and_keeps_the_others() -> None:
    given = {**tables("a", "b"), "score-clip": stored("clip.cosine", {"a": [0.1, 0.2], "b": [0.3, 0.4]})}
    source = given["source"].to_pylist()
    source[0]["facts"] = {"objects": [{"name": None}]}
    given["source"] = pa.Table.from_pylist(source, schema=PROMPTS)
    a, b = merged(spec("clip", "objects"), given)
    assert (a["status"], values(a), values(b)["clip.cosine"]) == ("ok", {"clip.cosine": [0.1, 0.2]}, [0.3, 0.4])
    assert [(note["scorer"], note["failed"]) for note in a["unknown"]] == [("objects", True)] and b["unknown"] is None


def test_a_model_stage_scores_what_its_scorers_say() -> None:
    class Half:
        name, version = "clip", "1"

        def score(self, rows: Any) -> Any:
            assert rows[0]["paths"] == ["a.png"] and rows[0]["id"] == "a"
            return {"clip.cosine": [[0.5] * len(row["candidates"]) for row in rows]}

    stage = ModelScoreStage(spec("clip"))
    (row,) = stage.process([Half()], tables("a")).to_pylist()
    assert values(row) == {"clip.cosine": [0.5, 0.5]} and stage.inputs == ("source", "sample")


def test_texts_that_clip_cut_are_a_score_of_their_own_and_counted() -> None:
    class Short:
        name, version = "clip", "1"

        def score(self, rows: Any) -> Any:
            return {"clip.cosine": [[0.5] * len(row["candidates"]) for row in rows]}

        def flags(self, rows: Any) -> Any:
            return {"clip.cut": [[0.0, 1.0], [None, 1.0]]}

    stage = ModelScoreStage(spec("clip"))
    made = stage.process([Short()], tables("a", "b"))
    assert [values(row)["clip.cut"] for row in made.to_pylist()] == [[0.0, 1.0], [None, 1.0]]
    assert stage.extras(made) == {"texts": 3, "cut": 2}
    given = {**tables("a", "b"), "score-clip": made}
    assert values(merged(spec("objects", "clip"), given)[0])["clip.cut"] == [0.0, 1.0]


def test_a_run_pairs_by_what_a_judge_says(tmp_path: Path) -> None:
    def longer(request: Request, index: int) -> str:
        """The verdict of a judge for whom longer is better."""
        first, _, second = request.messages[-1][1].partition("\nAnswer A:\n")[2].partition("\n\nAnswer B:\n")
        second = second.partition("\n\nWhich answer")[0]
        return f"Verdict: {'A' if len(first) > len(second) else 'B'}"

    run = generated(tmp_path)
    judge = {"model": "j", "mode": "pairwise", "pairs_per_prompt": 6, "engine": {"kind": "scripted"}}
    plan = Plan(recipe(tmp_path, score={"scorers": ["judge"], "judge": judge},
                       pair={"weights": {"judge.wins": 1}, "margin": 0.1, "max_length_ratio": 99}))  # fmt: skip
    for stage in plan.generation()[2:]:
        run.clear(stage.name)  # ``generated`` scored by other means
        for shard in run.shards("source"):
            process_shard(stage, ScriptedEngine(answer=longer) if stage.name == "ask-judge" else None, run, shard)  # type: ignore[arg-type]
    candidates = {row["id"]: row["candidates"] for row in run.table("sample").to_pylist()}
    made = [row for row in run.table("pair").to_pylist() if row["chosen"] is not None]
    assert len(made) >= 5
    for row in made:
        chosen, rejected = (candidates[row["id"]][row[side]]["text"] for side in ("chosen", "rejected"))
        assert len(chosen) > len(rejected)


# ----------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ({"scorers": ["judge"]}, "judge is among scorers and has no group"),
        ({"scorers": ["reward_model"]}, "reward_model is among scorers and has no group"),
        ({"scorers": ["objekts"]}, "objekts"),
        ({"judge": {"model": "j", "criteria": ["beauty"]}}, "'beauty' is none of faithfulness"),
        ({"judge": {"model": "j", "criteria": []}}, "criteria is empty"),
        ({"judge": {"model": "j", "criteria": {"wins": "Best?"}}}, "cannot be called 'wins'"),
        ({"judge": {"model": "j", "criteria": {"Very Good": "x?"}}}, "cannot be called"),
        ({"judge": {"model": "j", "pairs_per_prompt": 3}}, "no meaning with mode=pointwise"),
        ({"judge": {"model": "j", "engine": {"kind": "given"}}}, "asks nobody"),
        ({"judge": {"model": "j", "max_token": 3}}, "did you mean score.judge.max_tokens"),
        ({"judge": {"model": "j", "engine": {"kind": "foo"}}}, "score.judge.engine.kind: unknown"),
        ({"claims": {"model": "j", "template": "Is it?"}}, "must hold {claim}"),
        ({"claims": {"model": "j", "template": "{claims}?"}}, "must hold {claim}"),
        ({"claims": {"model": "j", "template": "{claim"}}, "is no template"),
        ({"claims": {"model": "j", "template_many": "{number} {noun} {x}"}}, "must hold {claim}, {noun}, {number}"),
        ({"claims": {"model": "j", "splitter": "model", "vocabulary": "scenes"}}, "no meaning with splitter=model"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, score: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe(tmp_path, score={"scorers": ["objects", "correctness"], **score})
    assert reason in error.value.message


def test_weights_may_name_every_score_of_a_scorer(tmp_path: Path) -> None:
    options = {"judge": {"model": "j", "criteria": {"brevity": "Is it brief?"}}}
    made = recipe(tmp_path, score={"scorers": ["judge"], **options}, pair={"weights": {"judge.brevity": 1}})
    assert made.score.judge is not None and made.score.judge.questions == (("brevity", "Is it brief?"),)
    assert make_recipe(made.model_dump(mode="json")) == made


def test_a_wrong_vocabulary_of_the_claims_is_named_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"score\.claims\.vocabulary"):
        stages(spec("claims", claims={"model": "c", "vocabulary": "./nowhere.json"}), [sampled()], 0)


def test_defaults_are_the_built_in_criteria_and_statements() -> None:
    assert [name for name, _ in Judge(model="j").questions] == ["faithfulness", "helpfulness", "coherence"]
    assert Claims(model="c").template.startswith("Is it true of the image that")


# ------------------------------------------------------------------------------------------------------- detections


def test_detections_are_the_truth_where_there_are_no_facts(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([{"image": "a.png", "detections": [
        {"label": "sun", "score": 0.9}, {"label": "cup", "score": 0.4},
    ]}]))  # fmt: skip
    given = tables("a")
    source = given["source"].to_pylist()
    source[0]["facts"] = None
    given["source"] = pa.Table.from_pylist(source, schema=PROMPTS)

    def hallucinated(threshold: float) -> list[float | None]:
        (row,) = merged(spec("objects", objects={"detections": str(path), "threshold": threshold}), given)
        return values(row)["objects.hallucinated"]

    assert (hallucinated(0.5), hallucinated(0.3)) == ([0.0, 1.0], [0.0, 0.0])
    with pytest.raises(ConfigError, match=r"score\.objects: cannot read the detections"):
        open_scorers(spec("objects", objects={"detections": "lost.json"}))


def test_answers_are_scored_by_their_order() -> None:
    given = tables("a")
    sample = given["sample"].to_pylist()
    for answer in sample[0]["candidates"]:
        answer["origin"] = "given"
    given["sample"] = pa.Table.from_pylist(sample, schema=CANDIDATES)
    (row,) = merged(spec("given"), given)
    assert values(row) == {"given": [1.0, 0.0]}


# ----------------------------------------------------------------------------------------------------- reward models


def reward_folder(tmp: Path, architecture: str) -> str:
    (tmp / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return str(tmp)


def test_a_reward_model_has_a_stage_and_is_known_before_the_run(tmp_path: Path) -> None:
    group = {"model": reward_folder(tmp_path, "LlamaForSequenceClassification"), "workers": 2}
    versions = set()
    for backend in ("auto", "transformers", "vllm"):
        (stage, _) = stages(spec("reward_model", reward_model={**group, "backend": backend}), [sampled()], 0)
        assert (stage.name, stage.worker and stage.worker.count) == ("score-reward_model", 2)
        versions.add(stage.options()["scorers"]["reward_model"])
    assert len(versions) == 1
    with pytest.raises(EngineError, match="no model folder"):
        open_scorers(spec("reward_model", reward_model={"model": "./nowhere/reward"}))
    with pytest.raises(ConfigError, match=r"score\.reward_model: .* no reward head"):
        open_scorers(spec("reward_model", reward_model={"model": reward_folder(tmp_path, "LlamaForCausalLM")}))


def test_what_vllm_cannot_read_is_left_to_transformers_and_refused_if_vllm_is_wanted(tmp_path: Path) -> None:
    group = {"model": reward_folder(tmp_path, "LlamaForRewardModelWithGating")}
    with pytest.raises(ConfigError, match="backend=vllm does not support"):
        open_scorers(spec("reward_model", reward_model={**group, "backend": "vllm"}))
    assert len(open_scorers(spec("reward_model", reward_model=group))) == 1


@pytest.mark.parametrize(
    ("backend", "gpu", "opened"),
    [
        ("auto", False, "transformers"),
        ("auto", True, "vllm"),
        ("vllm", False, "vllm"),
        ("transformers", True, "transformers"),
    ],
)
def test_the_backend_is_opened_where_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, gpu: bool, opened: str
) -> None:
    import torch

    from pipeline.engines.vllm_rewards import OpenVllmRewards
    from reward.models.backend import TransformersRewards

    class Constant:
        def rewards(self, conversations: Any) -> list[float | None]:
            return [float(len(conversation.messages[-1][1])) for conversation in conversations]

    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(OpenVllmRewards, "__call__", lambda self: calls.append("vllm") or Constant())
    monkeypatch.setattr(TransformersRewards, "open", lambda *_: calls.append("transformers") or Constant())
    group = {"model": reward_folder(tmp_path, "LlamaForSequenceClassification"), "backend": backend}
    stage = ModelScoreStage(spec("reward_model", reward_model=group))
    scorers = stage.worker.open()
    assert calls == []
    rows = [stage.process(scorers, tables("a")).to_pylist()[0] for _ in range(2)]
    assert [values(row) for row in rows] == [{"reward_model": [float(len(SUN)), float(len(BOTH))]}] * 2
    assert calls == [opened]


# -------------------------------------------------------------------------------------------------------------- docs


def test_the_recipes_of_the_docs_load() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(blocks) >= 4
    for block in blocks:
        score = block.get("score") or {"scorers": [*block], **block}
        assert make_recipe({**MINIMAL, "score": score, "pair": {"weights": {score["scorers"][0]: 1}}})
