"""A disk that really is full: a tmpfs of a few hundred kilobytes, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from chaos_kit import RECIPE, published
from conftest import Calm

SCRIPT = """
set -e
mount -t tmpfs -o size=600k tmpfs "$DISK"
set +e
"$PYTHON" -m pipeline.run "$RECIPE" output_dir="$DISK" >"$LOGS/first.txt" 2>&1
echo $? >"$LOGS/first.code"
set -e
find "$DISK" -name '*.tmp' >"$LOGS/left.txt"
mount -o remount,size=200m "$DISK"
"$PYTHON" -m pipeline.run "$RECIPE" output_dir="$DISK" >"$LOGS/second.txt" 2>&1
cp -r "$DISK/run/dataset" "$LOGS/dataset"
"""


def test_a_full_disk_is_said_and_survived(tmp_path: Path, calm: Calm) -> None:
    disk, logs, recipe = tmp_path / "disk", tmp_path / "logs", tmp_path / "recipe.yaml"
    disk.mkdir()
    logs.mkdir()
    recipe.write_text(yaml.safe_dump(RECIPE))
    places = {"DISK": str(disk), "LOGS": str(logs), "RECIPE": str(recipe), "PYTHON": sys.executable}
    # Whoever is not root may mount in a user namespace of their own.
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    command = [*namespace, "sh", "-c", SCRIPT]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True)
    first = (logs / "first.txt").read_text() if (logs / "first.txt").exists() else ""
    assert done.returncode == 0, done.stderr + first
    assert (logs / "first.code").read_text().strip() == "2"
    assert "no space left while writing" in first and "finished shards are kept" in first
    assert "Traceback" not in first and (logs / "left.txt").read_text() == ""
    assert published(logs / "dataset") == calm.dataset
