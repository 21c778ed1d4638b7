"""The style of a run: what is drawn from its tables, the gates of publishing, and where the numbers show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import COMMAND, RECIPE, make
from stage_kit import recipe
from two_text_run import build

from pipeline.base.errors import ConfigError
from pipeline.publishing import card, report
from pipeline.publishing import style_gate as consistency
from pipeline.publishing.collect import collect
from pipeline.publishing.config import Publish, StyleGates
from pipeline.publishing.publish import publish
from pipeline.publishing.style import Style
from pipeline.publishing.style_gate import ANSWERS, DESCRIPTIONS, StyleGate, check, of_run
from pipeline.recipe.load import load_recipe, make_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run
from pipeline.scenes.vocabulary import VOCABULARY
from pipeline.scoring.scorers import open_scorers
from pipeline.scoring.stage import ModelScoreStage, stages

GAP = 0.75


def rows(number: int = 60, opening: str = "The image shows") -> list[dict[str, Any]]:
    """Descriptions and, every third, answers. Chosen descriptions are likelier by ``GAP``."""
    names = sorted(VOCABULARY.objects)
    made: list[dict[str, Any]] = []
    for i in range(number):
        image = f"image {i}".encode()
        if i % 3 == 2:
            made.append({"image": image, "answer": "yes", "chosen": "Yes.", "rejected": "No.", "logps": [-1.0, -1.0]})
            continue
        first, second = names[i % 30], names[(7 * i + 3) % 30]
        texts = {"chosen": f"The image shows the {first}.", "rejected": f"{opening} the {second}."}
        made.append({"image": image, **texts, "logps": [-0.5, -0.5 - GAP]})
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(tmp_path_factory.mktemp("style") / "run", rows(), shards=3)


def published(run: Run, **gates: Any) -> Any:
    style = StyleGates.model_validate({"vocabulary": "scenes", **gates})
    return publish(run, Publish(style=style), lambda rows: card.render(run.path, RECIPE, COMMAND, content=rows))


# ---------------------------------------------------------------------------------------------------------- measures


def test_descriptions_and_answers_are_measured_apart(run: Run) -> None:
    style = of_run(run, VOCABULARY)
    assert list(style) == [DESCRIPTIONS, ANSWERS]
    assert (style[DESCRIPTIONS].pairs, style[ANSWERS].pairs) == (40, 20)
    assert style[DESCRIPTIONS].auc == 0.5 and style[ANSWERS].auc == 1.0
    assert style[DESCRIPTIONS].logp_gap == GAP and style[ANSWERS].logp_gap == 0.0
    assert style[DESCRIPTIONS].logp_pairs == 40 and style[DESCRIPTIONS].likelier_wins == 1.0


def test_shards_change_nothing(run: Run, tmp_path: Path) -> None:
    other = build(tmp_path / "run", rows(), shards=1)
    assert of_run(run, VOCABULARY) == of_run(other, VOCABULARY)


def test_a_cap_draws_by_hash_whatever_the_shards(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_run(run, VOCABULARY)[DESCRIPTIONS]
    monkeypatch.setattr(consistency, "MOST", 25)
    few = of_run(run, VOCABULARY)[DESCRIPTIONS]
    assert (few.pairs, few.measured) == (40, 25) and whole.measured == 40
    drawn = []
    for shards in (1, 4):
        other = build(tmp_path / str(shards), rows(), shards=shards)
        seen: list[Any] = []
        monkeypatch.setattr(consistency, "measure", lambda pairs, *_: seen.append(pairs))  # noqa: B023
        of_run(other, VOCABULARY)
        drawn.append(seen)
    assert drawn[0] == drawn[1] and [len(part) for part in drawn[0]] == [25, 20]


def test_prompts_about_one_image_are_one_group(tmp_path: Path) -> None:
    same = [{**row, "image": b"one"} for row in rows()]
    style = of_run(build(tmp_path / "run", same), VOCABULARY)[DESCRIPTIONS]
    assert style.groups == 1 and style.no_auc == "1 images; 20 are needed"


def test_without_the_scorer_there_is_no_log_prob_gap(tmp_path: Path) -> None:
    plain = build(tmp_path / "run", [{k: v for k, v in row.items() if k != "logps"} for row in rows()])
    style = of_run(plain, VOCABULARY)[DESCRIPTIONS]
    assert style.logp_gap is None and style.logp_pairs == 0 and style.edit_distance is not None
    assert collect(plain.path).logp_gaps == {}


# ------------------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize(
    ("gates", "reason"),
    [
        ({"max_auc": 0.6}, r"AUC is 1, beyond publish\.style\.max_auc=0\.6.*\n.*rewrite\.restyle"),
        ({"max_length_gap": 1.5}, r"length gap in words is -3, beyond.*max_length_gap=1\.5.*\n.*balance_length"),
        ({"max_logp_gap": 0.5}, r"log-prob gap per token is 0\.75, beyond.*max_logp_gap=0\.5.*\n.*on_policy"),
        ({"max_edit_distance": 0.2}, r"edit distance is 0\.\d+, beyond.*max_edit_distance=0\.2"),
        ({"min_edit_distance": 0.9}, r"edit distance is 0\.\d+, below.*min_edit_distance=0\.9"),
    ],
)
def test_a_gate_stops_before_anything_is_published(tmp_path: Path, gates: dict[str, float], reason: str) -> None:
    run = build(tmp_path / "run", rows(opening="In this very picture I see"))
    with pytest.raises(StyleGate, match=reason):
        published(run, **gates)
    assert not (run.path / "dataset").exists() and not (run.path / "dataset.partial").exists()
    assert published(run).pairs == 60  # without the gate


def test_all_gates_that_stop_are_named_at_once(tmp_path: Path) -> None:
    run = build(tmp_path / "run", rows(opening="In this very picture I see"))
    with pytest.raises(StyleGate) as error:
        published(run, max_auc=0.6, max_logp_gap=0.5)
    assert error.value.message.count("\n  - ") == 2


def test_what_is_within_its_bounds_is_published(run: Run) -> None:
    edits = {"min_edit_distance": 0.1, "max_edit_distance": 0.9}
    bounds = {"max_auc": 0.6, "max_length_gap": 0, "max_logp_gap": GAP, **edits}
    assert published(run, **bounds).pairs == 60


def test_a_gate_that_stops_leaves_the_old_dataset(tmp_path: Path) -> None:
    run = build(tmp_path / "run", rows(opening="In this very picture I see"))
    published(run)
    before = (run.path / "dataset" / "README.md").read_text()
    with pytest.raises(StyleGate):
        published(run, max_auc=0.6)
    assert (run.path / "dataset" / "README.md").read_text() == before


def test_gates_look_at_descriptions_and_not_at_what_is_unknown() -> None:
    values: dict[str, Any] = dict.fromkeys(Style.__dataclass_fields__)
    unknown = Style(**values)
    check({ANSWERS: Style(**{**values, "auc": 1.0}), DESCRIPTIONS: unknown}, StyleGates(max_auc=0.5, max_logp_gap=0))
    check({}, StyleGates(max_auc=0.5))
    with pytest.raises(StyleGate):
        check({DESCRIPTIONS: Style(**{**values, "auc": 1.0})}, StyleGates(max_auc=0.5))


# ------------------------------------------------------------------------------------------------- where it is shown


def test_card_report_and_summary_hold_the_numbers(tmp_path: Path) -> None:
    run = build(tmp_path / "run", rows(), shards=2)
    published(run)
    shown = (run.path / "dataset" / "README.md").read_text()
    section = shown.split("## Style\n")[1].split("\n## ")[0]
    assert "| measure | descriptions | answers |" in section
    assert "| AUC of chosen against rejected | 0.500 | 1.000 |" in section
    assert f"| log-prob gap per token, nats | {GAP} | 0 |" in section
    assert f"scenes@{VOCABULARY.version}" in section
    findings = collect(run.path)
    page = report.write(run.path, RECIPE, COMMAND).read_text()
    assert "<td>AUC of chosen against rejected</td><td>0.500</td><td>1.000</td>" in page
    assert "log-prob of chosen" in page and list(findings.logp_gaps) == [DESCRIPTIONS, ANSWERS]
    told = json.loads(json.dumps(report.style(run)))
    assert told[DESCRIPTIONS]["auc"] == 0.5 and told[DESCRIPTIONS]["auc_ci"] == [0.5, 0.5]
    wanted = {"auc", "auc_ci", "logp_gap", "length_gap", "edit_distance", "pairs"}
    assert all(wanted <= set(kind) for kind in told.values())


def test_the_card_says_that_nothing_was_masked(tmp_path: Path) -> None:
    run = build(tmp_path / "run", rows())
    published(run, vocabulary=None)
    assert "with nothing masked" in (run.path / "dataset" / "README.md").read_text()


def test_the_same_tables_give_the_same_card_again(tmp_path: Path) -> None:
    cards = []
    for name in ("a", "b"):
        run = build(tmp_path / name, rows(opening="I see"))
        published(run)
        cards.append((run.path / "dataset" / "README.md").read_bytes())
    assert cards[0] == cards[1]
    assert published(run).reused


def test_numbers_of_other_tables_are_not_shown(tmp_path: Path) -> None:
    run = build(tmp_path / "run", rows())
    assert collect(run.path).style == {} and report.style(run) == {}
    assert "Not measured." in card.render(run.path, RECIPE, COMMAND)
    published(run)
    assert collect(run.path).style
    run.write("pair", 0, run.read("pair", 0).slice(1), by=run.record("pair"))
    assert collect(run.path).style == {}


def test_a_run_without_any_of_it_has_no_section_in_the_report(tmp_path: Path) -> None:
    page = report.write(make(tmp_path / "run", prompts_count=12), RECIPE, COMMAND).read_text()
    assert "log-prob of chosen" not in page and "AUC of chosen" not in page


def test_another_vocabulary_under_the_same_name_publishes_again(tmp_path: Path) -> None:
    run, words = build(tmp_path / "run", rows()), tmp_path / "words.json"
    words.write_text(json.dumps({"sun": "sun"}))
    published(run, vocabulary=str(words))
    assert published(run, vocabulary=str(words)).reused
    words.write_text(json.dumps({"sun": "sun", "suns": "sun"}))
    assert not published(run, vocabulary=str(words)).reused


# ------------------------------------------------------------------------------------------------------------ recipe


def test_the_mask_is_the_vocabulary_of_rewriting_or_of_the_scorers(tmp_path: Path) -> None:
    words = str(tmp_path / "words.json")
    assert recipe(tmp_path).publish.style.vocabulary == "scenes"  # of `objects`, which is scored by default
    loaded = recipe(tmp_path, score={"scorers": ["objects", "correctness"], "objects": {"vocabulary": words}})
    assert loaded.publish.style.vocabulary == words
    weights = {"weights": {"correctness": 1}}
    assert recipe(tmp_path, score={"scorers": ["correctness"]}, pair=weights).publish.style.vocabulary is None
    named = recipe(tmp_path, publish={"style": {"vocabulary": "mine.json"}})
    assert named.publish.style.vocabulary == "mine.json"
    rewriting = recipe(
        tmp_path,
        rewrite={"vocabulary": words},
        pair={"policy": "rewritten", "weights": {"objects.hallucinated": -1}},
    )
    assert rewriting.publish.style.vocabulary == words
    assert make_recipe(rewriting.model_dump(mode="json")) == rewriting


@pytest.mark.parametrize(
    ("style", "reason"),
    [
        ({"max_logp_gap": 0.1}, r"publish\.style\.max_logp_gap=0\.1 needs log-probs; add likelihood to score\.scorers"),
        ({"min_edit_distance": 0.5, "max_edit_distance": 0.1}, "min_edit_distance=0.5 is above"),
        ({"max_auc": 0.4}, r"publish\.style\.max_auc.*\(value 0\.4\)"),
        ({"max_uac": 0.6}, r"publish\.style\.max_uac: unknown key .*did you mean publish\.style\.max_auc"),
    ],
)
def test_what_is_wrong_with_the_gates_is_said(tmp_path: Path, style: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        recipe(tmp_path, publish={"style": style})


def test_the_likelihood_is_that_of_the_model_to_be_trained(tmp_path: Path) -> None:
    score = {"scorers": ["objects", "correctness", "likelihood"]}
    sampled = recipe(tmp_path, score=score)
    assert sampled.score.likelihood.model == "canned"
    assert recipe(tmp_path, score=score, train={"model": "a/b"}).score.likelihood.model == "a/b"
    loaded = recipe(tmp_path, score={**score, "likelihood": {"model": "c/d"}}, train={"model": "a/b"})
    assert loaded.score.likelihood.model == "c/d"
    assert recipe(tmp_path).score.likelihood.model is None  # not scored, not named
    assert make_recipe(sampled.model_dump(mode="json")) == sampled


def test_likelihoods_have_a_stage_of_their_own_before_the_one_that_joins_them() -> None:
    loaded = load_recipe("mdpo", ["score.scorers=[objects, correctness, likelihood]"])
    names = [stage.name for stage in Plan(loaded).generation()]
    assert names[names.index("score") - 1] == "score-likelihood"
    (scorer,) = (scorer for scorer in open_scorers(loaded.score) if scorer.name == "likelihood")
    assert scorer.version.startswith("2:sha256:")
    stage = next(stage for stage in stages(loaded.score, [loaded.sample], 0) if isinstance(stage, ModelScoreStage))
    assert stage.worker.kind == "likelihood:scenes-vlm" and stage.worker.gpus == 1.0


def test_a_scorer_without_a_model_says_so() -> None:
    from pipeline.scoring.config import Score

    with pytest.raises(ConfigError, match=r"score\.likelihood: model is missing"):
        open_scorers(Score(scorers=("likelihood",)))


def test_the_recipe_that_restyles_has_gates() -> None:
    style = load_recipe("ha_dpo").publish.style
    assert style.max_auc is not None and style.max_length_gap is not None and style.vocabulary == "scenes"
