"""The vocabulary that a recipe names: a built-in one, or a file."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.base.images.image_files import read_text
from pipeline.base.model_names import digest
from reward.text import vocabulary_file
from reward.text.object_vocabulary import Vocabulary

#: In the order in which they are offered.
BUILT_IN = ("scenes", "coco")


def built_in(name: str) -> Vocabulary:
    """One of ``BUILT_IN``."""
    if name == "scenes":
        from pipeline.scenes.vocabulary import VOCABULARY

        return VOCABULARY
    from reward.text.coco_vocabulary import VOCABULARY as COCO

    return COCO


def vocabulary(name: str | None, key: str = "score.objects.vocabulary") -> Vocabulary:
    """``key`` is what the recipe calls it. None is the built-in world's: a recipe fills in that of its source.

    Raises:
        ConfigError: there is no such vocabulary, or its file is wrong.
    """
    if name is None or name in BUILT_IN:
        return built_in(name or "scenes")
    path = Path(name)
    try:
        # The version is the content: a score made with other synonyms is another score.
        return vocabulary_file.read(path, digest(read_text(path)))
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}" if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{key}: cannot use {name!r}: {reason}",
            f"give {', '.join(f'`{built}`' for built in BUILT_IN)} or {vocabulary_file.SHAPE}",
        ) from error
