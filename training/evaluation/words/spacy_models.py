"""spaCy's models, which some originals use. An import of this module does not need spaCy."""

from __future__ import annotations

from typing import Any

from training.errors import DataError


def open_model(model: str, role: str, instead: str, package: str = "spacy") -> tuple[Any, str]:
    """The model and its version, such as ``spacy:en_core_web_lg@3.8.0``.

    Args:
        role: what the model is for, in the words of an error.
        instead: the option that does without it.
        package: what pip installs for it.

    Raises:
        DataError: spaCy or the model is missing.
    """
    try:
        import spacy

        nlp = spacy.load(model)
    except (ImportError, OSError) as error:
        raise DataError(
            f"the {role} {model} is missing ({error}); pip install {package} && python -m spacy download {model}, or "
            f"choose {instead}, whose numbers are not comparable with published ones"
        ) from error
    return nlp, f"spacy:{model}@{nlp.meta['version']}"
