"""What happens to an image before a model sees it, as its processor's own configuration says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.base import model_names as models
from pipeline.sampling.config import OpenAIOptions, PluggedOptions, Sample, VllmOptions

#: Files of a processor, the newer one first: there, the images' part stands under a key of its own.
_FILES = ("processor_config.json", "preprocessor_config.json")
#: Of a processor's configuration, what says nothing about images.
_OTHER = frozenset({"processor_class", "auto_map", "_processor_class"})


def preprocessing(spec: Sample) -> str:
    """The settings of the image processor as JSON, and ``max_image_pixels`` if images are scaled down before."""
    before = "" if spec.max_image_pixels is None else f"at most {spec.max_image_pixels} pixels, then "
    if isinstance(spec.engine, OpenAIOptions):
        return f"{before}the server's own"
    if isinstance(spec.engine, PluggedOptions):
        return f"{before}that of {spec.engine.kind}"
    if not isinstance(spec.engine, VllmOptions):
        return f"{before}none"
    image = settings(spec.model, spec.revision)
    return before + (json.dumps(image, sort_keys=True) if image is not None else "unknown: the model has no processor")


def settings(model: str, revision: str | None = None) -> dict[str, Any] | None:
    """Those of the image processor of a folder, a built-in model or a hub model that is already in the cache."""
    for name in _FILES:
        path = local(model, name, revision)
        if path is None:
            continue
        read = json.loads(path.read_text(encoding="utf-8"))
        images = read.get("image_processor", read) if name == _FILES[0] else read
        if "image_processor_type" in images or "feature_extractor_type" in images:
            return {key: value for key, value in images.items() if key not in _OTHER}
    return None


def build(model: str, revision: str | None = None) -> str:
    """Which build of a model this is: a digest of a folder's content, or the commit of a hub model in the cache."""
    path = local(model, "config.json", revision)
    if path is not None and path.parent.parent.name == "snapshots":
        return path.parent.name
    return models.identity(model, revision)


def local(model: str, name: str, revision: str | None) -> Path | None:
    """A file of a model on this machine; None where it has none, or has not been fetched."""
    folder = Path(models.resolve(model))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    try:
        path = try_to_load_from_cache(model, name, revision=revision)
    except ValueError:  # no possible name on the hub; whoever opens the model says so
        return None
    return Path(path) if isinstance(path, str) else None
