"""examples/cluster: the files are well formed, and what they call is there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import Commands
from pipeline.recipe.load import load_recipe
from training.config.recipe import WholeRecipe

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples" / "cluster"
FILES = sorted(CLUSTER.iterdir())
PAGE = (ROOT / "docs" / "cluster.md").read_text()
TEXTS = {**{path.name: path.read_text() for path in FILES}, "cluster.md": PAGE}
IMAGES = ["Dockerfile.cpu", "Dockerfile.gpu"]


def content(name: str) -> Any:
    return yaml.safe_load(TEXTS[name])


def commands(text: str) -> list[list[str]]:
    """The command lines of ``vlm-preference`` with arguments, without those of variables."""
    lines = re.findall(r"vlm-preference (?!\.)((?:[a-z-]+)(?: [^\s`&\"]+)+)", text.replace("\\\n#", ""))
    return [shlex.split(line) for line in lines if "-t" not in line]


def test_every_file_is_on_the_page() -> None:
    assert {path.name for path in FILES} == {*IMAGES, "ray-job.yaml", "kuberay-job.yaml", "slurm.sh"}
    assert all(f"`{path.name}`" in PAGE for path in FILES)


@pytest.mark.parametrize("name", ["ray-job.yaml", "kuberay-job.yaml", "cluster.md"])
def test_a_command_is_one_of_ours_and_its_changes_are_keys(name: str) -> None:
    lines = [line for line in commands(TEXTS[name]) if line[0] == "run"]
    assert lines
    for command, _, *changes in lines:
        assert command in Commands.lazy
        recipe = load_recipe("quickstart", [*changes, "train=null"], WholeRecipe)
        assert len(changes) > 2 and recipe.shard_retries == 20 and recipe.output_dir.endswith("/runs")


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_what_ray_is_given_it_knows(name: str) -> None:
    from ray.dashboard.modules.job.cli import submit
    from ray.scripts.scripts import start

    text = TEXTS[name].replace("\\\n", " ").replace("#  ", " ")
    for words, command in (("ray start", start), ("ray job submit", submit)):
        known = {option for parameter in command.params for option in parameter.opts}
        for line in re.findall(rf"{words} ([^`\n]*)", text):
            given = re.findall(r"(--[a-z][a-z-]*)", line.split(" -- ")[0])
            assert set(given) <= known


def test_the_job_of_kubernetes_holds_the_workers_that_it_names() -> None:
    job = content("kuberay-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) == {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
                         "runtimeEnvYAML", "rayClusterSpec"}  # fmt: skip
    assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"env_vars"}
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    assert f"sample.engine.workers={workers['replicas']}" in spec["entrypoint"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "vlm-preference:gpu"
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_environment_of_a_job_is_texts() -> None:
    environment = content("ray-job.yaml")
    assert set(environment) == {"env_vars", "excludes"}
    assert all(isinstance(value, str) for value in environment["env_vars"].values())


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_made_of_what_is_there(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    lines = TEXTS[name].replace("\\\n", " ").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    assert {line[0] for line in words} == {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"} and words[0][0] == "FROM"
    copied = {source for line in words if line[0] == "COPY" for source in line[1:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {package.removesuffix("*") for package in packages} <= copied
    assert re.findall(r'"\.\[(\w+)\]"', TEXTS[name]) == [name.rpartition(".")[2]] and name.rpartition(".")[2] in extras


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_host_of_a_registry_is_named(name: str) -> None:
    hosts = re.findall(r"https?://([\w.-]+)", TEXTS[name])
    assert set(hosts) <= {"HEAD"}
    assert not re.search(r"pypi|pythonhosted|quay\.io|ghcr\.io|docker\.io|nvcr\.io|index-url", TEXTS[name])


class Slurm:
    """Stand-ins for the commands that the script calls; each adds what it was called with to ``log``."""

    def __init__(self, folder: Path, run: str) -> None:
        self.log = folder / "log"
        self._bin = folder / "venv" / "bin"
        self._bin.mkdir(parents=True)
        (self._bin / "activate").touch()
        said = f'echo "$(basename $0) $*" >> {self.log}'
        self._write("scontrol", f'{said}\n[ "$1" = show ] && printf "n1\\nn2\\n"\nexit 0')
        self._write("srun", 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"')
        self._write("ray", said)
        self._write("hostname", "echo 10.0.0.1")
        self._write("vlm-preference", f"{said}\n{run}")
        self._folder = folder

    def _write(self, name: str, text: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "VENV": str(self._bin.parent),
            "RAY_START_SECONDS": "0.2",
            "SLURM_SUBMIT_DIR": str(self._folder),
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_ID": "70123",
            "SLURM_CPUS_PER_TASK": "32",
            "SLURM_GPUS_ON_NODE": "4",
        }
        command = ["bash", str(CLUSTER / "slurm.sh"), "my recipe.yaml", "sample.n=2"]
        return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)


def test_the_script_starts_ray_on_every_node_and_ends_as_the_run_does(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=False).returncode == 0
    slurm = Slurm(tmp_path, f'echo "$RAY_ADDRESS" >> {tmp_path}/log; exit 3')
    process = slurm.start()
    assert process.wait(30) == 3, process.communicate()
    lines = slurm.log.read_text().splitlines()
    assert "ray start --head --port=30123 --include-dashboard=false --num-cpus=32 --num-gpus=4 --block" in lines
    assert "ray start --address=10.0.0.1:30123 --num-cpus=32 --num-gpus=4 --block" in lines
    assert lines[-2:] == ["vlm-preference run my recipe.yaml sample.n=2", "10.0.0.1:30123"]


def test_the_script_ends_the_run_and_goes_back_into_the_queue_before_its_time_is_over(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, f'trap "echo ended >> {tmp_path}/log; exit 143" TERM\necho up >> {tmp_path}/log\n'
                  "while true; do sleep 0.1; done")  # fmt: skip
    process = slurm.start()
    until = time.monotonic() + 30
    while "up" not in (slurm.log.read_text().splitlines() if slurm.log.exists() else []):
        assert time.monotonic() < until, process.poll()
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert slurm.log.read_text().splitlines()[-2:] == ["ended", "scontrol requeue 70123"]
