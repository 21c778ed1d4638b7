"""lmms-eval as a process of its own: it is no dependency, and often lives in an environment of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.base import model_names
from pipeline.base.ending import run_child
from pipeline.base.errors import ConfigError
from training.errors import DataError

#: What its backends call the model, if not this.
_PRETRAINED = "pretrained"
_KEYS = {"vllm": "model", "vllm_generate": "model", "sglang": "model"}
_VERSION = """\
import sys
from importlib import metadata, util
if util.find_spec("lmms_eval") is None:
    sys.exit(3)
try:
    print(metadata.version("lmms_eval"))
except metadata.PackageNotFoundError:
    print("unknown")
"""
_STDERR = 2


@dataclass(frozen=True)
class LmmsEval:
    """One call of it.

    Args:
        python: the interpreter of an environment that has it.
        model: a folder, a built-in model or a name on the hub.
        backend: its ``--model``, such as ``vllm`` or ``qwen2_5_vl``.
        model_args: further arguments of the backend.
        options: further options of its command line; ``True`` stands for one without a value.
    """

    python: str
    model: str
    tasks: tuple[str, ...]
    backend: str = "vllm"
    model_args: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)

    def command(self, output: Path) -> list[str]:
        """
        Raises:
            ConfigError: the model is an adapter, or its path cannot be written in ``model_args``.
            EngineError: there is no such model.
        """
        place = model_names.resolve(self.model)
        _check_model(place)
        given = {_KEYS.get(self.backend, _PRETRAINED): place, **self.model_args}
        model_args = ",".join(
            f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()
        )
        options: dict[str, object] = {
            "model": self.backend,
            "model_args": model_args,
            "tasks": ",".join(self.tasks),
            "output_path": str(output),
            "log_samples": True,
            **self.options,
        }
        flags = [(f"--{key}",) if value is True else (f"--{key}", str(value)) for key, value in options.items()]
        return [self.python, "-m", "lmms_eval", *(word for flag in flags for word in flag)]

    def run(self, output: Path) -> Path:
        """Its file of results, a new one in ``output``. What it prints goes to the standard error.

        Raises:
            DataError: it ended without results. It does so with an exit status of 0 as well.
            PipelineError: see ``command``.
        """
        command = self.command(output)
        before = set(result_files(output))
        status = run_child(command, stdout=_STDERR)
        made = [path for path in result_files(output) if path not in before]
        if status or not made:
            raise DataError(
                f"lmms-eval ended with status {status} and {'' if made else 'no '}results; its own words are above. "
                "Correct what they name (--backend, --model-arg and --option reach it)"
            )
        return made[-1]


def version(python: str) -> str:
    """Which lmms-eval the interpreter has.

    Raises:
        ConfigError: it has none, or there is no such interpreter.
    """
    remedy = "pip install lmms-eval there, or give --python PATH, the interpreter of an environment that has it"
    try:
        asked = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True)
    except OSError as error:
        raise ConfigError(f"--python {python} cannot be run: {error.strerror}", remedy) from error
    if asked.returncode:
        raise ConfigError(f"lmms-eval is not installed for {python}", remedy)
    return asked.stdout.strip()


def result_files(folder: Path) -> list[Path]:
    """Its files of results in a folder, the newest last: their names begin with date and time."""
    return sorted(folder.glob("**/*_results.json"), key=lambda path: (path.name, str(path)))


def _check_model(place: str) -> None:
    """
    Raises:
        ConfigError: see ``LmmsEval.command``.
    """
    folder = Path(place)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        merged = folder.parent / "model"
        where = f"give {merged}" if (merged / "config.json").is_file() else "merge it into its model and give that"
        raise ConfigError(f"{place} is an adapter, which the backends of lmms-eval do not load", where)
    if "," in place:
        raise ConfigError(f"{place}: lmms-eval takes no path with a comma", "rename it, or give a link to it")


def split_tasks(texts: Sequence[str]) -> tuple[str, ...]:
    """
    >>> split_tasks(["mmstar, ocrbench", "mmstar"])
    ('mmstar', 'ocrbench')
    """
    return tuple(dict.fromkeys(filter(None, (task.strip() for text in texts for task in text.split(",")))))
