"""``examples/photos``: real photos through everything, as a newcomer would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def test_photos_become_pairs_a_model_numbers_exports_and_an_upload(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "examples" / "photos" / "run.py"), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    summary = json.loads((out / "photos" / "summary.json").read_text())
    assert summary["pairs"] > 0 and summary["stages"]["source"]["rows"] == 12
    rows = {(row["suite"], row["metric"]): row for row in summary["benchmarks"]}
    assert {suite for suite, _ in rows} == {"pope", "chair", "mme"}
    for row in rows.values():
        assert None not in (row["before"], row["after"], row["difference"]) and 0 < row["p_value"] <= 1
    assert (out / "photos" / "train" / "model" / "model.safetensors").is_file()
    exports = out / "exports"
    pairs = summary["pairs"]
    assert "dataset_info.json" in os.listdir(exports / "llama_factory")
    assert len(json.loads((exports / "llama_factory" / "llama_factory.json").read_text())) == pairs
    assert len((exports / "ms_swift" / "ms_swift.jsonl").read_text().splitlines()) == pairs
    assert len(json.loads((exports / "pds" / "pds.json").read_text())) == pairs
    for name in ("trl", "rlaif_v"):
        assert sum(pq.read_table(path).num_rows for path in (exports / name / "data").glob("*.parquet")) == pairs
    # Its photos lie outside the run, so they are in the dataset, and no folder of this machine is.
    for path in (out / "photos" / "dataset").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
    assert "README.md" in done.stdout and "pairs/data-00000.arrow" in done.stdout
