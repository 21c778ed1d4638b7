"""Whether the words that texts are read with know what the prompts' facts name.

A true object without a word for it would count for nothing where a text names it, and as missing everywhere: what is
not known would be scored as not there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.errors import InputError
from pipeline.recipe.recipe import Recipe
from pipeline.running.store import Run
from pipeline.scoring.vocabularies import BUILT_IN, built_in, vocabulary
from reward.text.object_vocabulary import Vocabulary

#: Sources whose facts are written in the words of ``scenes``.
_OUR_OWN = ("scenes", "imagine")
_SHOWN = 5
#: Reads no regions.
_OBJECTS = "score.objects.vocabulary"


def check(run: Run, table: str, recipe: Recipe) -> None:
    """``table`` has the prompts of the recipe's source.

    Raises:
        InputError: a vocabulary of the recipe does not know an object of the facts, or nothing that regions describe.
    """
    wanted = _vocabularies(recipe)
    if recipe.source.kind in _OUR_OWN:
        wanted = {key: name for key, name in wanted.items() if name != "scenes"}
    if not wanted:
        return
    ours = built_in("scenes")
    names: Counter[str] = Counter()
    sample, understood = None, False
    for shard in run.shards(table):
        facts = _open_facts(run.read(table, shard))
        names.update(pc.struct_field(pc.list_flatten(pc.struct_field(facts, "objects")), "name").to_pylist())
        phrases = _phrases(facts)
        sample = sample or (phrases[0].as_py() if len(phrases) else None)
        understood = understood or len(ours.named_objects(phrases)[0]) > 0
    for key, name in wanted.items():
        words = vocabulary(name, key)
        if unknown := [word for word, _ in names.most_common() if word is not None and words.canonical(word) is None]:
            raise _unknown_names(key, words, unknown)
        if sample is not None and not understood and name == "scenes" and key != _OBJECTS:
            raise InputError(
                f"the regions of the facts, such as {sample!r:.80}, name no object of {key}=scenes",
                f"set {key} to words that they are written in: coco, or a JSON file",
            )


def _vocabularies(recipe: Recipe) -> dict[str, str | None]:
    """Key of the recipe -> the vocabulary that facts are read with there."""
    objects, scorers = recipe.score.objects, recipe.score.scorers
    vocabularies: dict[str, str | None] = {}
    if "objects" in scorers and not (objects.detections and objects.always):
        vocabularies[_OBJECTS] = objects.vocabulary
    if "facts" in scorers:
        vocabularies["score.facts.vocabulary"] = recipe.score.facts.vocabulary
    if recipe.rewrite is not None:
        vocabularies["rewrite.vocabulary"] = recipe.rewrite.vocabulary
    return vocabularies


def _open_facts(prompts: pa.Table) -> Any:
    """The facts of the prompts whose answers they judge: of those that are no questions."""
    facts = columns.whole(prompts["facts"])
    open_prompt = columns.ok(prompts) & columns.bools(pc.is_null(pc.struct_field(facts, "answer")))
    return facts.filter(pa.array(open_prompt))


def _phrases(facts: Any) -> Any:
    """What regions say where no objects do."""
    bare = pc.equal(pc.fill_null(pc.list_value_length(pc.struct_field(facts, "objects")), 0), 0)
    regions = pc.list_flatten(pc.struct_field(facts.filter(bare), "regions"))
    return pc.drop_null(pc.struct_field(regions, "phrase"))


def _unknown_names(key: str, words: Vocabulary, names: list[str]) -> InputError:
    shown = ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    message = f"the facts name {shown}: no object of {key}={words.name}"
    fits = {name: sum(built_in(name).canonical(word) is not None for word in names) for name in BUILT_IN}
    best = max(fits, key=lambda name: fits[name])
    if fits[best] == len(names):
        return InputError(message, f"set {key}={best}, which knows all of them")
    example: Mapping[str, str] = {name: name for name in names[:2]}
    added = f"add every form in which texts name them, such as {json.dumps(example, ensure_ascii=False)}"
    hint = f"`{best}` knows {fits[best]} of them; " if fits[best] else ""
    return InputError(message, f"{hint}{added}, to a JSON file that {key} names, or take them out of the facts")
