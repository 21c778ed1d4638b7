"""A published dataset goes to the Hub whole or not at all, and what must not go is found before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import help_kit
import pyarrow as pa
import pytest
from hub_kit import TOKEN, Fault, StandIn, hub
from stage_kit import generated
from typer.testing import CliRunner

from pipeline import publish as command
from pipeline.publishing import hub as module
from pipeline.publishing.collect import collect
from pipeline.publishing.config import Publish
from pipeline.publishing.hub import HubError, send
from pipeline.publishing.outgoing import OutgoingFile, outgoing
from pipeline.recipe.plan import Plan, publish_run
from pipeline.running.store import Run

ROOT = Path(__file__).parents[3]
REPO = "owner/pairs"


def published(folder: Path, **publish: Any) -> Run:
    """A run with its dataset, card and pictures, as ``pipeline.run`` leaves them."""
    from stage_kit import recipe

    values = {"publish": {"rows_per_shard": 4, "license": "cc-by-4.0", **publish}}
    run = generated(folder, **values)
    publish_run(Plan(recipe(folder, **values)), run, ["python", "-m", "pipeline.run", "recipe.yaml"])
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return published(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    shutil.copytree(run.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with hub() as server:
        yield server


@pytest.fixture
def api(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in keeps files whole
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    return HfApi(stand_in.url, token=TOKEN)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loaded(folder: Path, cache: Path, config: str) -> Any:
    import datasets

    return datasets.load_dataset(str(folder), config, split="train", cache_dir=str(cache))


def test_what_arrives_is_what_was_published_and_opens_by_its_card(
    run: Run, stand_in: StandIn, api: Any, tmp_path: Path
) -> None:
    address = send(outgoing(run), REPO, api=api)
    assert address == f"{stand_in.url}/datasets/{REPO}" and not stand_in.repos[REPO].private
    arrived = stand_in.save(REPO, tmp_path / "arrived")
    assert contents(arrived) == contents(run.path / "dataset")
    assert {"README.md", "LICENSE", "pairs/data-00001.arrow", "pictures/scores.png", "pictures/example-1-1.png"} <= set(
        contents(arrived)
    )
    assert len(stand_in.repos[REPO].commits) == 1, "nobody sees half of it"
    for config in ("pairs", "candidates"):
        there, here = loaded(arrived, tmp_path / "a", config), loaded(run.path / "dataset", tmp_path / "b", config)
        assert there.features == here.features and there.to_dict() == here.to_dict() and len(there) > 0
    shown = (arrived / "README.md").read_text()
    assert "](pictures/scores.png)" in shown and "license: cc-by-4.0" in shown


def test_what_an_earlier_dataset_had_more_is_removed_and_other_files_stay(
    run: Run, stand_in: StandIn, api: Any, tmp_path: Path
) -> None:
    send(outgoing(run), REPO, api=api)
    content = stand_in.repos[REPO].branches["main"]
    content |= {
        "pairs/data-00099.arrow": b"old",
        "pictures/old.png": b"old",
        "notes.txt": b"mine",
        "pairs.csv": b"mine",
    }
    sent = len(stand_in.asked)
    send(outgoing(run), REPO, api=api)
    assert not {"pairs/data-00099.arrow", "pictures/old.png"} & set(content)
    assert content["notes.txt"] == content["pairs.csv"] == b"mine"
    assert not [line for line in stand_in.asked[sent:] if line.startswith("PUT")], "nothing is sent again"


def test_an_interrupted_upload_goes_on_and_nothing_is_seen_before(run: Run, stand_in: StandIn, api: Any) -> None:
    stand_in.faults = [Fault("^PUT", 403, after=2)]
    with pytest.raises(HubError, match="may not write"):
        send(outgoing(run), REPO, api=api)
    there = set(stand_in.blobs)
    assert len(there) >= 1 and stand_in.repos[REPO].branches["main"] == {}
    stand_in.faults, before = [], len(stand_in.asked)
    send(outgoing(run), REPO, api=api)
    again = {line.rpartition("/")[2] for line in stand_in.asked[before:] if line.startswith("PUT")}
    assert not again & there and stand_in.repos[REPO].branches["main"].keys() == contents(run.path / "dataset").keys()


def test_private_and_a_branch_of_its_own(run: Run, stand_in: StandIn, api: Any) -> None:
    assert send(outgoing(run), REPO, private=True, revision="v2", api=api).endswith("/tree/v2")
    repo = stand_in.repos[REPO]
    assert repo.private and repo.branches["main"] == {} and "README.md" in repo.branches["v2"]
    send(outgoing(run), REPO, private=True, revision="v2", api=api)
    repo.private = False
    before = dict(repo.branches["v2"])
    with pytest.raises(HubError, match=r"everybody can read it\n  -> make it private in its settings"):
        send(outgoing(run), REPO, private=True, revision="v2", api=api)
    assert repo.branches["v2"] == before


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("repos/create", 401), r"does not know who you are.*\(401: .*\n  -> log in with `hf auth login`"),
        (Fault("repos/create", 403), r"may not write to owner/pairs \(403.*\n  -> .*member of owner"),
        (Fault("tree", 404, headers={"X-Error-Code": "RevisionNotFound"}), r"no such place.*\n  -> check OWNER, NAME"),
        (Fault("commit", 409), r"changes owner/pairs at the same time \(409.*\n  -> wait a moment; the same command"),
        (Fault("commit", 412), r"has changed owner/pairs meanwhile \(412"),
        (Fault("commit", 400, '{"error": "file too large"}'), r"refuses the upload.*\(400: .*file too large"),
        (Fault("preupload", 429), r"too many requests of yours \(429.*\n  -> wait some minutes; the same command goes"),
        (Fault("info/lfs", 503), r"a fault of its own \(503\)\n  -> try again later; the same command goes on"),
        (Fault("PUT", 500), r"a fault of its own \(500\)"),
        (
            Fault("validate-yaml", 400, '{"errors": [{"message": "bad licence"}]}'),
            r"does not take the card \(.*bad licence",
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_a_remedy(
    run: Run, stand_in: StandIn, api: Any, fault: Fault, says: str
) -> None:
    stand_in.faults = [fault]
    with pytest.raises(HubError, match=says) as caught:
        send(outgoing(run), REPO, api=api)
    assert TOKEN not in str(caught.value) and str(caught.value).count("\n") == 1
    assert stand_in.repos.get(REPO) is None or stand_in.repos[REPO].branches["main"] == {}


def test_without_a_token_a_network_or_leave_to_use_it(
    run: Run, stand_in: StandIn, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, constants

    going = outgoing(run)
    with pytest.raises(HubError, match=r"does not know who you are"):
        send(going, REPO, api=HfApi(stand_in.url, token="hf_wrong0123456789abc"))
    stand_in.stop()
    with pytest.raises(HubError, match=r"cannot be reached .*\n  -> check the network"):
        send(going, REPO, api=api)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set.*\n  -> set HF_HUB_OFFLINE=0"):
        send(going, REPO, api=api)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(HubError, match="nobody is logged in"):
        send(going, REPO, api=HfApi(stand_in.url))


# ------------------------------------------------------------------------------------------------------- the command


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(command.app, ["hub", *map(str, arguments)])


def test_help_answers_in_under_a_second() -> None:
    text, seconds = help_kit.told("pipeline.publish")
    assert "--dry-run" in text and seconds < 1


def test_a_dry_run_lists_what_would_go_and_asks_nobody(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise AssertionError("asks")

    monkeypatch.setattr(module, "send", nobody)
    done = invoke(run.path, REPO, "--dry-run")
    assert done.exit_code == 0, done.output
    size = (run.path / "dataset/README.md").stat().st_size
    assert f"{size:,}  README.md" in done.output and "pictures/scores.png" in done.output
    total = sum(len(data) for data in contents(run.path / "dataset").values())
    assert f"{len(contents(run.path / 'dataset'))} files, {total:,} bytes: nothing is sent" in done.output
    assert invoke(run.path / "dataset", REPO, "--dry-run").output == done.output


def test_the_command_sends_and_tells_where_to_and_no_token(run: Run, stand_in: StandIn) -> None:
    """In a process of its own, as a user has it."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": stand_in.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    words = [sys.executable, "-m", "pipeline.publish", "hub", str(run.path), REPO, "--private"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{stand_in.url}/datasets/{REPO}\n" and stand_in.repos[REPO].private
    stand_in.faults = [Fault("commit", 403, TOKEN)]
    del stand_in.repos[REPO].branches["main"]["README.md"]
    lost = subprocess.run([*words, "--debug"], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert lost.returncode == 2 and "may not write" in lost.stderr
    assert TOKEN not in done.stdout + done.stderr + lost.stdout + lost.stderr


@pytest.mark.parametrize("name", ["pairs", "a/b/c", "a--b/c", "owner/", "https://huggingface.co/owner/pairs"])
def test_a_repository_has_an_owner(run: Run, name: str) -> None:
    done = invoke(run.path, name, "--dry-run")
    assert done.exit_code == 2 and "OWNER/NAME" in done.output


def test_what_is_no_published_run_is_said(tmp_path: Path, copy: Run) -> None:
    for place in (tmp_path / "none", tmp_path):
        done = invoke(place, REPO, "--dry-run")
        assert done.exit_code == 2 and "has no published dataset" in done.output
    shard = copy.path / "dataset/pairs/data-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert "is damaged" in invoke(copy.path, REPO, "--dry-run").output


def test_without_a_licence_nothing_goes(copy: Run) -> None:
    card = copy.path / "dataset/README.md"
    text = card.read_text()
    for line in ("license: other\n", ""):
        card.write_text(text.replace("license: cc-by-4.0\n", line))
        done = invoke(copy.path, REPO, "--dry-run")
        assert done.exit_code == 2 and "no licence says" in done.output and "publish.license=" in done.output
    card.write_text(text.replace("license: cc-by-4.0\n", "license: unknown\n"))
    assert invoke(copy.path, REPO, "--dry-run").exit_code == 0
    card.write_text(text.replace("config_name: pairs", "config_name: default"))
    assert "where the rows of pairs and candidates are" in invoke(copy.path, REPO, "--dry-run").output
    card.write_text("# No header\n")
    assert "does not begin with a YAML header" in invoke(copy.path, REPO, "--dry-run").output


def test_nothing_but_the_dataset_goes(copy: Run) -> None:
    for name in (
        ".env",
        "notes.txt",
        "pairs/cache/data-00000.arrow",
        "pairs/.data-00000.arrow.tmp",
        "pictures/a/b.png",
    ):
        (copy.path / "dataset" / name).parent.mkdir(exist_ok=True)
        (copy.path / "dataset" / name).write_text(f"HF_TOKEN={TOKEN}")
    before = {file.name for file in outgoing(copy)}
    assert before == set(contents(copy.path / "dataset")) - {
        *(".env", "notes.txt", "pairs/cache/data-00000.arrow", "pairs/.data-00000.arrow.tmp", "pictures/a/b.png")
    }


# ---------------------------------------------------------------------------------------------- what must not go out


def rewrite(run: Run, shard: str, of: Callable[[dict[str, Any]], dict[str, Any]], row: int) -> str:
    """Change a row of a shard in place; its id."""
    path = run.path / "dataset" / shard
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    rows = table.to_pylist()
    rows[row] = of(rows[row])
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
    return str(rows[row]["id"])


HOME = str(Path.home() / "data")
SECRET = "hf_zZ9yY8xX7wW6vV5uU4tT"


def with_text(text: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, "chosen": [{"role": "assistant", "content": text}]}


def with_score_text(text: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "candidates": [*row["candidates"][:-1], {**row["candidates"][-1], "finish_reason": text}]}

    return changed


@pytest.mark.parametrize(
    ("shard", "of", "column", "says"),
    [
        (
            "pairs/data-00001.arrow",
            with_text(f"It is {HOME}/a.png."),
            "chosen.content",
            "names a place of this machine",
        ),
        ("pairs/data-00001.arrow", with_text("see file:///etc/passwd"), "chosen.content", "names a place"),
        ("pairs/data-00001.arrow", with_text(f"use {SECRET} now"), "chosen.content", "what looks like a secret"),
        ("pairs/data-00001.arrow", lambda row: {**row, "source": f"{HOME}/a.jsonl:3"}, "source", "names a place"),
        (
            "pairs/data-00001.arrow",
            lambda row: {**row, "chosen_model": "/mnt/x/qwen"},
            "chosen_model",
            "names a place of this machine (/mnt/x/qwen)",
        ),
        ("candidates/data-00000.arrow", with_score_text(f"{HOME}/x/y"), "candidates.finish_reason", "names a place"),
        (
            "candidates/data-00000.arrow",
            lambda row: {**row, "error": "https://me:pw@host/x"},
            "error",
            "what looks like a secret",
        ),
    ],
)
def test_the_first_place_of_what_must_not_go_is_named(
    copy: Run, shard: str, of: Callable[[dict[str, Any]], dict[str, Any]], column: str, says: str
) -> None:
    row_id = rewrite(copy, shard, of, 2)
    done = invoke(copy.path, REPO, "--dry-run")
    assert done.exit_code == 2
    assert f"{shard}, row 2 (id {row_id}), column {column}: " in done.output and says in done.output
    assert "  -> " in done.output and SECRET not in done.output and "pw@" not in done.output


@pytest.mark.parametrize(
    "text",
    ["/no_think What is /this/thing/here?", "1/2 and/or https://host/home/a/b", "the /root of it", "hf_datasets"],
)
def test_what_only_looks_like_it_may_go(copy: Run, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.local_paths.Path.home", lambda: Path("/home/anna"))
    record = copy.record("pair")
    assert record is not None
    copy.save(replace(record, options={**record.options, "system_prompt": "/no_think", "list": "/this/thing/*.json"}))
    rewrite(copy, "pairs/data-00001.arrow", with_text(text), 2)
    assert invoke(copy.path, REPO, "--dry-run").exit_code == 0


def test_secrets_of_the_environment_and_in_the_card_are_found(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(copy, "pairs/data-00000.arrow", with_text("the word is open sesame today"), 1)
    assert invoke(copy.path, REPO, "--dry-run").exit_code == 0
    monkeypatch.setenv("MY_PASSWORD", "open sesame")
    assert "data-00000.arrow, row 1" in invoke(copy.path, REPO, "--dry-run").output
    monkeypatch.delenv("MY_PASSWORD")
    card = copy.path / "dataset/README.md"
    card.write_text(f"{card.read_text()}\nMade in {copy.path.resolve()}.\n")
    done = invoke(copy.path, REPO, "--dry-run")
    assert f"README.md, line {len(card.read_text().splitlines())}: names a place of this machine" in done.output


def test_images_that_stay_outside_are_refused_with_the_remedy(tmp_path: Path) -> None:
    run = generated(tmp_path)
    (tmp_path / "photos").mkdir()
    for shard in run.shards("source"):
        table = run.read("source", shard)
        rows = table.to_pylist()
        for row in rows:
            file = tmp_path / "photos" / f"{row['id']}.png"
            file.write_bytes(row["images"][0]["bytes"])
            row["images"] = [{"bytes": None, "path": str(file)}]
        run.write(
            "source", shard, pa.Table.from_pylist(rows, schema=table.schema.remove_metadata()), by=run.record("source")
        )
    from stage_kit import recipe

    for images, code in (("reference", 2), ("embed", 0)):
        plan = Plan(recipe(tmp_path, publish={"license": "mit", "images": images}))
        publish_run(plan, run, ["python", "-m", "pipeline.run", f"{tmp_path}/photos/recipe.yaml"])
        done = invoke(run.path, REPO, "--dry-run")
        assert done.exit_code == code, done.output
        if code:
            assert "column images.path: an image is a file of this machine" in done.output
            assert "publish.images=embed --stages publish" in done.output


def test_memory_does_not_grow_with_the_shards(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy.path / "dataset/pairs/data-00000.arrow"
    own, peaks = pa.default_memory_pool(), []
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    from pipeline.publishing.outgoing import check_texts

    for times in (1, 40):
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            for _ in range(times):
                writer.write_table(table)
        pool = pa.proxy_memory_pool(own)
        pa.set_memory_pool(pool)
        try:
            check_texts([OutgoingFile("pairs/data-00000.arrow", path, 1)], copy)
        finally:
            pa.set_memory_pool(own)
        peaks.append(pool.max_memory())
    assert 0 < peaks[1] < 1.5 * peaks[0]


def test_what_is_published_by_default_may_go(run: Run) -> None:
    assert Publish().images == "embed" and collect(run).pairs > 0
    assert invoke(run.path, REPO, "--dry-run").exit_code == 0
