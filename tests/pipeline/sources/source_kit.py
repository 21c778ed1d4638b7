"""A source of a recipe, for the tests of the readers."""

from __future__ import annotations

from typing import Any

from pipeline.recipe.load import make_recipe


def source(**keys: Any) -> Any:
    """The ``source`` group of a recipe, checked as a recipe's is."""
    values = {"name": "x", "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}, "source": keys}
    return make_recipe(values).source
