"""Which model a name in a recipe means, and what makes it the same model next time."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from pipeline.base.errors import EngineError

SCENES = Path(__file__).parents[1] / "scenes" / "models"
#: Where models lie that are put together on this machine.
CACHE = Path(
    os.environ.get("VLM_PREFERENCE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlm-preference"
).expanduser()
#: What ships of scenes-smollm, as ``identity`` gives it: other weights make another folder.
SMOLLM = "a3ddfab9cdbe2289377ab4ff"
#: Models that ship with the package, and one of which a part does.
BUILT_IN = {
    "scenes-vlm": SCENES / "vlm",
    "scenes-vlm-strong": SCENES / "vlm-strong",
    "scenes-vlm-weak": SCENES / "vlm-weak",
    "scenes-clip": SCENES / "clip",
    "scenes-reward": SCENES / "reward",
    "scenes-reward-blind": SCENES / "reward-blind",
    "scenes-smollm": CACHE / f"scenes-smollm-{SMOLLM}",
}
#: What decides about a model's output; documentation and training logs do not.
_IDENTITY_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt", ".bin", ".pt"})


def resolve(name: str) -> str:
    """The folder behind a built-in or local name; a hub id is returned unchanged.

    Raises:
        EngineError: the name looks like a local folder, or like a built-in one, and there is none.
    """
    if name in BUILT_IN:
        folder = BUILT_IN[name]
        if not folder.is_dir() and name == "scenes-smollm":
            raise EngineError(
                f"the built-in model {name!r} is not put together on this machine yet: no folder {folder}",
                "run once: python -m pipeline.scenes.smollm --install (fetches its base, 93 MB; then a minute)",
            )
        if not folder.is_dir():
            raise EngineError(
                f"the built-in model {name!r} is missing: no folder {folder}",
                "install the package with its data files, or build it with "
                "python -m pipeline.scenes.models_build.build",
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if looks_local(name):
        raise EngineError(f"no model folder {name!r}", _suggestion(path))
    if "/" not in name:
        close = difflib.get_close_matches(name, [*BUILT_IN, *_neighbours(path)], n=1)
        if close:
            raise EngineError(f"no model {name!r}", f"did you mean {close[0]!r}?")
    return name


def looks_local(name: str) -> bool:
    """Whether a name can only be a path: hub ids are ``name`` or ``owner/name``.

    >>> looks_local("./models/vlm"), looks_local("/data/vlm"), looks_local("llava-hf/llava-1.5-7b-hf")
    (True, True, False)
    """
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def require_folder(path: str, needed: str) -> None:
    """Check that a resolved local folder holds ``needed`` (a hub id is left to whoever opens it)."""
    folder = Path(path)
    if folder.is_dir() and not (folder / needed).is_file():
        raise EngineError(
            f"folder {path} has no {needed}", "give the folder that save_pretrained wrote, or another model"
        )


def identity(name: str, revision: str | None = None) -> str:
    """What identifies a model in a fingerprint: the content of a local folder, or ``id@revision`` of a hub model.

    The content is hashed once per process for as long as the files' sizes and times stay the same.
    """
    path = Path(resolve(name))
    if not path.is_dir():
        return f"{name}@{revision or 'main'}"
    files = tuple(
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix in _IDENTITY_SUFFIXES
    )
    if not files:
        raise EngineError(f"folder {path} holds no model", "give the folder that save_pretrained wrote")
    return "sha256:" + _digest(files)


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in files:
        path = Path(name)
        digest.update(json.dumps([path.name, size]).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:24]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _neighbours(path: Path) -> list[str]:
    parent = path.parent
    return [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []


def _suggestion(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either; check the path, or name one of {', '.join(BUILT_IN)}"
    close = difflib.get_close_matches(path.name, _neighbours(path), n=1)
    return f"did you mean {str(path.parent / close[0])!r}?" if close else f"check the path; {path.parent} exists"
