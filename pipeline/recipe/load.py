"""Read a recipe: a built-in name or a YAML file, with overrides; every problem of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base import config_file
from pipeline.base.errors import ConfigError
from pipeline.recipe.recipe import Recipe, run_name

RECIPES = Path(__file__).parents[1] / "recipes"
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def load_recipe(
    name_or_path: str | Path,
    overrides: Sequence[str] = (),
    group: type[AnyRecipe] = Recipe,  # type: ignore[assignment]
) -> AnyRecipe:
    """Read a built-in recipe or a YAML file and apply overrides such as ``sample.n=4`` (values are read as YAML).

    ``training.config.recipe.WholeRecipe`` as ``group`` also checks ``train`` and ``evaluate``.

    Raises:
        ConfigError: listing every problem found.
    """
    path = find_recipe(str(name_or_path))
    return config_file.load(group, path, overrides, {"name": run_name(path.stem) or path.stem}, "the recipe")


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a plain mapping and freeze it.

    Raises:
        ConfigError: listing every problem found.
    """
    return config_file.make(Recipe, values, what="the recipe")


def built_in() -> list[str]:
    """The names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of a built-in one.

    Raises:
        ConfigError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"no recipe file {name!r}", f"check the path, or name one of {', '.join(built_in())}")
    close = difflib.get_close_matches(name, built_in(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(f"no recipe {name!r}", f"{hint}Built in: {', '.join(built_in())}; or give a YAML file")
