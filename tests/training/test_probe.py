"""Probes: log-probs that are the trainer's own, images that are truly others, and a result that is computed once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError
from pipeline.base.export import save_for_vllm
from training import formats
from training.config import Corruption, TrainConfig
from training.data.dataset import prepare
from training.data.identity import Start
from training.errors import DataError
from training.evaluation.probing import probing
from training.evaluation.probing.condition_logps import compute
from training.evaluation.probing.conditions import select_rows, show
from training.evaluation.probing.probing import probe
from training.evaluation.probing.request import ProbeRequest, logps_key
from training.evaluation.probing.swap import partners
from training.forward.model import load_model, prepare_tuning
from training.forward.policy import make_policy
from training.loop import reference
from training.probe import app

Configure = Callable[..., TrainConfig]
Rows = list[dict[str, Any]]
Publish = Callable[[Rows], datasets.Dataset]


@pytest.fixture
def request_of(model_folder: Path, dataset_folder: Path, tmp_path: Path) -> Callable[..., ProbeRequest]:
    def make(**changes: Any) -> ProbeRequest:
        return replace(
            ProbeRequest(str(model_folder), str(dataset_folder), tmp_path / "probe", batch_size=3), **changes
        )

    return make


@pytest.fixture(scope="session")
def other_model(make_model: Callable[..., Any], processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_for_vllm(make_model(seed=1), processor, tmp_path_factory.mktemp("other") / "model")


@pytest.fixture(scope="session")
def blind_model(make_model: Callable[..., Any], processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its projector makes the same of every image."""
    model = make_model()
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.linear_2.parameters():
            parameter.zero_()
    return save_for_vllm(model, processor, tmp_path_factory.mktemp("blind") / "model")


def stored(path: Path) -> list[dict[str, Any]]:
    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all().to_pylist()


def value(results: dict[str, Any], part: str, name: str) -> float:
    return results[part]["metrics"][name]["value"]


def test_the_log_probs_are_those_of_the_trainers_own_reference(
    request_of: Callable[..., ProbeRequest], configure: Configure
) -> None:
    request = request_of()
    probe(request, visible=False)
    config = configure(objective="mdpo")
    model, processor = load_model(config)
    pairs = prepare(formats.open(config.dataset), processor, config)
    policy = make_policy(prepare_tuning(model, config), torch.device("cpu"), config, pairs)
    ref = reference.load_or_compute(policy, pairs, config, Start("weights", "config", "processor"), config.output_dir)(
        range(8)
    )
    rows = {shown: stored(request.output / f"{shown}.arrow") for shown in request.all_conditions}
    assert [row["row"] for row in rows["true"]] == list(range(8))
    for condition, column, branch in (
        ("true", "chosen", "chosen"),
        ("true", "rejected", "rejected"),
        ("corrupted", "chosen", "corrupted"),
    ):
        computed = torch.tensor([row[column] for row in rows[condition]], dtype=torch.float64)
        torch.testing.assert_close(computed, ref[branch], atol=1e-5, rtol=0)
    for condition in request.conditions:  # negative control: what is shown does matter
        apart = [abs(a["chosen"] - b["chosen"]) for a, b in zip(rows["true"], rows[condition], strict=True)]
        assert min(apart) > 1e-4
        assert [row["id"] for row in rows[condition]] == [row["id"] for row in rows["true"]]
        assert [row["image"] for row in rows[condition]] == [row["image"] for row in rows["true"]]


def test_a_model_that_cannot_see_has_no_gap_between_images(
    request_of: Callable[..., ProbeRequest], blind_model: Path
) -> None:
    blind = probe(request_of(model=str(blind_model)), visible=False)
    for condition in ("swapped", "corrupted"):
        assert value(blind, "conditional", f"accuracy_gap_{condition}") == 0.0
        assert value(blind, "conditional", f"chosen_gap_{condition}") == pytest.approx(0.0, abs=1e-5)
    seeing = probe(request_of(output=request_of().output.with_name("seeing")), visible=False)
    assert abs(value(seeing, "conditional", "chosen_gap_swapped")) > 1e-3


def test_drift_is_the_difference_to_the_reference_beside_the_true_image(
    request_of: Callable[..., ProbeRequest], other_model: Path
) -> None:
    request = request_of(reference=str(other_model), conditions=("none",))
    results = probe(request, visible=False)
    mine, old = (stored(folder / "true.arrow") for folder in (request.output, request.output / "reference"))
    change = [a["chosen"] - b["chosen"] for a, b in zip(mine, old, strict=True)]
    assert value(results, "drift", "chosen") == pytest.approx(sum(change) / 8)
    won = [a["chosen"] - b["chosen"] > a["rejected"] - b["rejected"] for a, b in zip(mine, old, strict=True)]
    assert value(results, "conditional", "accuracy_true") == pytest.approx(sum(won) / 8)
    assert results["reference"]["provenance"]["model"] == str(other_model)
    assert "swapped" not in json.dumps(results["conditional"]["metrics"])
    low, high = results["drift"]["metrics"]["chosen"]["interval"]
    assert low < value(results, "drift", "chosen") < high


def test_a_model_has_not_drifted_from_itself(request_of: Callable[..., ProbeRequest], model_folder: Path) -> None:
    results = probe(request_of(reference=str(model_folder), conditions=()), visible=False)
    assert value(results, "drift", "chosen") == value(results, "drift", "margin") == 0.0
    assert value(results, "conditional", "accuracy_true") == 0.5


def test_the_same_again_reads_what_is_there_and_runs_no_model(
    request_of: Callable[..., ProbeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(reference=request_of().model)
    first = probe(request, visible=False)
    monkeypatch.setattr(probing, "_compute", None)
    assert probe(request, visible=False) == first
    (request.output / probing.RESULT).unlink()  # killed before the end: log-probs are there
    assert probe(request, visible=False) == first
    with pytest.raises(TypeError):  # negative control: another seed crops elsewhere
        probe(replace(request, seed=1), visible=False)


def test_a_killed_probe_computes_only_the_conditions_that_are_missing(
    request_of: Callable[..., ProbeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of()
    first = probe(request, visible=False)
    (request.output / probing.RESULT).unlink()
    (request.output / "none.arrow").unlink()
    (request.output / "swapped.arrow").write_bytes(b"damaged")
    conditions: list[list[str]] = []
    real = probing._compute
    monkeypatch.setattr(probing, "_compute", lambda *args: conditions.append(args[2]) or real(*args))
    assert probe(request, visible=False) == first
    assert conditions == [["swapped", "none"]]


def test_other_weights_or_other_pairs_are_not_taken_for_what_is_stored(
    request_of: Callable[..., ProbeRequest], other_model: Path, publish: Publish, rows: Rows, tmp_path: Path
) -> None:
    request = request_of(conditions=())
    first = probe(request, visible=False)
    assert probe(replace(request, model=str(other_model)), visible=False)["key"] != first["key"]
    publish(rows[:5]).save_to_disk(str(tmp_path / "fewer"))
    fewer = probe(replace(request, dataset=str(tmp_path / "fewer")), visible=False)
    assert (fewer["pairs"], first["pairs"]) == (5, 8)


def test_another_picture_at_the_same_path_is_not_taken_for_what_is_stored(
    request_of: Callable[..., ProbeRequest], rows: Rows, tmp_path: Path
) -> None:
    places = [tmp_path / f"{number}.png" for number in range(len(rows))]
    for place, row in zip(places, rows, strict=True):
        row["images"][0].save(place)
    named = [{**row, "images": [place.name]} for place, row in zip(places, rows, strict=True)]
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    request = request_of(conditions=(), dataset=str(tmp_path / "named.jsonl"))
    first = probe(request, visible=False)
    assert probe(request, visible=False) == first
    rows[5]["images"][0].save(places[2])
    again = probe(request, visible=False)
    assert again["key"] != first["key"] and again["conditional"] != first["conditional"]


def test_pictures_below_another_root_are_not_taken_for_those_that_are_stored(
    request_of: Callable[..., ProbeRequest], rows: Rows, tmp_path: Path
) -> None:
    for folder, pictures in (("a", rows), ("b", rows[::-1])):
        (tmp_path / folder).mkdir()
        for number, row in enumerate(pictures):
            row["images"][0].save(tmp_path / folder / f"{number}.png")
    named = [{**row, "images": [f"{number}.png"]} for number, row in enumerate(rows)]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    request = request_of(conditions=(), dataset=str(tmp_path / "rows" / "named.jsonl"), image_root=str(tmp_path / "a"))
    first = probe(request, visible=False)
    assert probe(request, visible=False) == first
    other = probe(replace(request, image_root=str(tmp_path / "b")), visible=False)
    assert other["key"] != first["key"] and other["conditional"] != first["conditional"]
    keys = {
        logps_key(changed, "model", "owner/name", "true") for changed in (request, replace(request, image_root="b"))
    }
    assert len(keys) == 2  # of a dataset that is known by its name, the root is all that tells


def test_a_pair_is_swapped_with_one_about_another_picture(
    processor: Any, publish: Publish, rows: Rows, configure: Configure
) -> None:
    for index in (1, 2, 3):  # four pairs about one picture
        rows[index]["images"] = rows[0]["images"]
    true = prepare(formats.read(publish(rows)), processor, configure())
    swapped = prepare(show(true, "swapped"), processor, configure(objective="dpo"))
    images = [pair.prompt.images for pair in true.pairs]
    other = [pair.prompt.images for pair in swapped.pairs]
    assert all(a != b for a, b in zip(images, other, strict=True))
    assert sorted(images) == sorted(other)  # every image is lent once
    assert [pair.chosen_ids for pair in true.pairs] == [pair.chosen_ids for pair in swapped.pairs]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_partners_are_strangers_whatever_the_order_and_each_lends_once_if_that_is_possible(
    shows: list[int], rng: Any
) -> None:
    ids, pictures = [f"pair-{i}" for i in range(len(shows))], [(str(picture),) for picture in shows]
    if len(set(shows)) == 1:
        with pytest.raises(DataError, match=r"pair pair-0: .* leave out the condition swapped"):
            partners(ids, pictures)
        return
    lenders = partners(ids, pictures)
    assert all(pictures[a] != pictures[b] for a, b in enumerate(lenders))
    if max(map(shows.count, shows)) <= len(shows) / 2:
        assert sorted(lenders) == list(range(len(shows)))
    order = rng.sample(range(len(ids)), len(ids))
    again = partners([ids[i] for i in order], [pictures[i] for i in order])
    assert {ids[i]: ids[lenders[i]] for i in range(len(ids))} == {
        ids[i]: ids[order[again[place]]] for place, i in enumerate(order)
    }


def test_a_partner_has_as_many_images_and_none_in_common() -> None:
    pictures = [("sun", "boat"), ("sun",), ("boat", "horse"), ("tree", "star"), ("key",)]
    lenders = partners(list("abcde"), pictures)
    assert [len(pictures[i]) for i in lenders] == [2, 1, 2, 2, 1]
    assert all(not set(pictures[a]) & set(pictures[b]) for a, b in enumerate(lenders))


def test_fewer_pairs_are_among_more_and_stay_when_rows_move(publish: Publish, rows: Rows) -> None:
    opened = formats.read(publish(rows))
    few, more = select_rows(opened, 3, seed=0), select_rows(opened, 6, seed=0)
    assert len(few) == 3 and set(few) < set(more) and few == sorted(few)
    turned = formats.read(publish(rows[::-1]))
    assert sorted(7 - index for index in select_rows(turned, 3, seed=0)) == few
    assert select_rows(opened, 3, seed=1) != few


def test_rows_of_text_alone_are_left_out(publish: Publish, rows: Rows) -> None:
    rows[2]["images"] = []
    assert select_rows(formats.read(publish(rows)), None, 0) == [0, 1, 3, 4, 5, 6, 7]
    with pytest.raises(DataError, match="nothing to take away"):
        select_rows(formats.read(publish([{**row, "images": []} for row in rows])), None, 0)


def test_rows_that_are_too_long_are_left_out_and_counted(
    request_of: Callable[..., ProbeRequest], publish: Publish, rows: Rows, tmp_path: Path
) -> None:
    rows[4]["rejected"][0]["content"] = "a square" + " and nothing" * 80  # the model has 128 positions
    publish(rows).save_to_disk(str(tmp_path / "long"))
    results = probe(request_of(dataset=str(tmp_path / "long")), visible=False)
    assert (results["pairs"], results["conditional"]["counts"]) == (7, {"pairs": 7, "left_out": 1})
    assert [row["row"] for row in stored(request_of().output / "swapped.arrow")] == [0, 1, 2, 3, 5, 6, 7]


def test_a_log_prob_is_not_computed_for_a_pair_without_an_owner(
    pairs: Any, make_model: Callable[..., Any], configure: Configure
) -> None:
    policy = make_policy(make_model(), torch.device("cpu"), configure(), pairs)
    owner = probing._owners(pairs, list(range(8)))[3]
    (row,) = compute(policy, pairs, {3: owner}, configure(objective="dpo"))
    assert row["id"] == pairs.pairs[3].id and row["chosen_tokens"] == len(pairs.pairs[3].chosen_ids)


def test_the_command_prints_a_table(request_of: Callable[..., ProbeRequest]) -> None:
    request = request_of()
    options = ["--dataset", request.dataset, "--output", str(request.output), "--conditions", "none", "--limit", "4"]
    done = CliRunner().invoke(app, [request.model, *options, "--corruption", "black"])
    assert done.exit_code == 0, done.output
    assert "4 pairs" in done.output and "| accuracy_gap_none | " in done.output


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (["--conditions", "swaped"], "swaped is unknown; use some of swapped, none, corrupted"),
        (["--corruption", "{kind: crop, keep: 1}"], "--corruption"),
        (["--dataset", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_probed_is_said_in_one_line(
    request_of: Callable[..., ProbeRequest], wrong: list[str], reason: str
) -> None:
    request = request_of()
    options = [request.model, "--dataset", request.dataset, "--output", str(request.output), *wrong]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2 and reason in done.output and "Traceback" not in done.output


def test_a_model_that_is_nowhere_is_said_before_any_is_loaded(
    request_of: Callable[..., ProbeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_compute", lambda *_, **__: pytest.fail("a model was loaded"))
    request = request_of()
    options = ["nobody/has-this", "--dataset", request.dataset, "--output", str(request.output)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 2 and "'nobody/has-this' is in no cache of this machine" in done.output


def test_a_corruption_from_the_data_needs_the_data(pairs: Any) -> None:
    with pytest.raises(DataError, match="no column rejected_images"):
        show(replace(pairs, corruption=Corruption(kind="data")), "corrupted")


def test_a_row_without_the_rejected_image_that_is_shown_is_named(
    rows: Rows, publish: Publish, processor: Any, configure: Configure
) -> None:
    given = publish(rows)
    lent = [*rows[1:], rows[0]]
    rejected = [row["images"] if index != 4 else [] for index, row in enumerate(lent)]
    column = datasets.Dataset.from_dict(
        {"rejected_images": rejected}, features=datasets.Features(rejected_images=datasets.List(datasets.Image()))
    )
    data = datasets.concatenate_datasets([given, column], axis=1)
    true = prepare(formats.read(data), processor, configure(objective="dpo", corruption={"kind": "data"}))
    with pytest.raises(DataError, match=r"row 4 \(id pair-4\): has 0 of the 1 rejected_images .* drop the row"):
        show(true, "corrupted")


def test_ties_are_left_out_and_counted(
    request_of: Callable[..., ProbeRequest], rows: Rows, publish: Publish, tmp_path: Path
) -> None:
    rows[2]["rejected"] = rows[2]["chosen"]
    publish(rows).save_to_disk(str(tmp_path / "tied"))
    done = probe(request_of(dataset=str(tmp_path / "tied"), conditions=("none",)))
    assert (done["pairs"], done["conditional"]["counts"]) == (7, {"pairs": 7, "left_out": 1})


def test_the_command_answers_without_torch() -> None:
    code = "import sys, training.probe; sys.exit(bool({'torch', 'datasets', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_condition_is_named_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        ProbeRequest("m", "d", Path("o"), conditions=("none", "none"))
