"""Whether a model can be opened from here, found out in seconds without opening it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from pipeline.base.errors import EngineError
from pipeline.base.model_names import require_folder, resolve

#: What the weights of a folder may end in, for an engine that reads any of them.
ANY_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
#: One of these is in every folder with a tokenizer, and with what prepares images.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "tekken.json")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_SAVED = "give the folder that save_pretrained wrote, or another model"
#: Bytes of weights below which a pass on a CPU takes milliseconds.
_SMALL = 64 * 2**20
#: Seconds that a hub has to answer.
_HUB_TIMEOUT_S = 10.0


def require_model(
    model: str,
    revision: str | None = None,
    weights: Collection[str] = (".safetensors",),
    images: bool = False,
) -> None:
    """Check a folder, a built-in name or a hub id. ``weights`` are the endings of which one must be there, none needed
    if empty; ``images``: the model must come with what prepares them.

    Raises:
        EngineError: a file is missing from the folder, or the hub id is in no cache and the hub cannot be asked or does
            not have it.
    """
    name = resolve(model)
    folder = Path(name)
    if not folder.is_dir():
        _require_hub(name, revision)
        return
    require_folder(name, "config.json")
    files = {file.name for file in folder.iterdir()}
    if weights and not any(file.endswith(tuple(weights)) for file in files):
        raise EngineError(f"folder {name} has no weights ({', '.join(f'*{ending}' for ending in weights)})", _SAVED)
    if files.isdisjoint(_TOKENIZERS):
        raise EngineError(f"folder {name} has no tokenizer ({', '.join(_TOKENIZERS[:3])})", _SAVED)
    if images and files.isdisjoint(_PROCESSORS):
        raise EngineError(f"folder {name} has no processor of images ({' or '.join(_PROCESSORS)})", _SAVED)


def local_folder(model: str, revision: str | None = None) -> Path | None:
    """Where the files of a model lie on this machine: a folder, or the cache of the hub; None where they do not."""
    folder = Path(resolve(model))
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(str(model), "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def is_small(model: str) -> bool:
    """Whether the weights of a folder, a built-in model or one in the hub's cache are small; those of a model that is
    not on this machine are not."""
    folder = local_folder(model)
    if folder is None:
        return False
    files = [file for file in folder.rglob("*") if file.name.endswith(ANY_WEIGHTS) and file.is_file()]
    return sum(file.stat().st_size for file in files) < _SMALL


def _require_hub(name: str, revision: str | None) -> None:
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        return  # the machines that open it have caches and networks of their own
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str) and _has_weights(Path(cached).parent):
            return
        if constants.HF_HUB_OFFLINE:
            raise EngineError(
                f"model {name!r} is in no cache of this machine, and HF_HUB_OFFLINE is set, so it is not fetched",
                "give a folder, or set HF_HUB_OFFLINE=0 where there is a network",
            )
        HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT_S)
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at revision {revision}" if revision else ""
        raise EngineError(
            f"the hub has no model {name!r}{at}, or does not show it",
            "check the id; for a gated or private model log in: hf auth login",
        ) from error
    except EngineError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP client each raise their own kinds
        raise EngineError(
            f"model {name!r} is in no cache of this machine, and the hub {constants.ENDPOINT} cannot be reached "
            f"({type(error).__name__})",
            "give a folder, or check the network, HF_ENDPOINT and the proxy's variables",
        ) from error


def _has_weights(snapshot: Path) -> bool:
    return any(file.name.endswith(ANY_WEIGHTS) for file in snapshot.iterdir())
