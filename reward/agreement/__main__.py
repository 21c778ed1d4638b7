"""``python -m reward.agreement DATASET``: how often every score prefers what is really better."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command
from pipeline.base.hardware import this_machine
from pipeline.base.marks import ACCEPT, FILE, SWAP, Marks
from pipeline.base.marks import read as read_marks
from reward.agreement.agreement_table import lines, markdown, records
from reward.agreement.image_control import rescore
from reward.agreement.marked_pairs import marked
from reward.agreement.read_prompts import read
from reward.agreement.truth import known_attributes, preferences
from reward.scorers.protocol import Scorer
from reward.text import coco_vocabulary, vocabulary_file
from reward.text.object_vocabulary import Vocabulary


def main(
    dataset: Annotated[str, typer.Argument(help="Run directory, published dataset, or pairs with labels.")],
    clip: Annotated[
        list[str] | None, typer.Option(help="CLIP folder to score with, again with swapped images.")
    ] = None,
    reward_model: Annotated[list[str] | None, typer.Option(help="Reward model to score with, likewise.")] = None,
    base: Annotated[str | None, typer.Option(help="The model that adapters among them belong to.")] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(help='coco, JSON file {"surface form": "object"}, or MODULE:NAME; tells wrong details too.'),
    ] = None,
    by_marks: Annotated[
        bool, typer.Option("--marks", help="What was accepted or swapped in pipeline.browse says what is better.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Split of a pairs dataset.")] = None,
    image_root: Annotated[
        str | None,
        typer.Option(help="What image paths are relative to and may not leave; default: the dataset's folder."),
    ] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Follow http(s) addresses in rows.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N prompts.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Bootstrap samples.")] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers there as well.")] = None,
) -> None:
    """Pairwise accuracy of every score against exact facts or labels."""
    prompts = read(dataset, split, image_root, allow_http, bool(clip or reward_model))
    marks = _marks(dataset) if by_marks else {}
    of_marks = {key.id for key in marks}
    prompts = [prompt for prompt in prompts if not by_marks or prompt.id in of_marks][:limit]
    words = _vocabulary(vocabulary) if vocabulary else None
    for title, scorer in _scorers(clip or [], reward_model or [], base):
        prompts = rescore(prompts, scorer, title, control=True)
    if by_marks:
        prompts = marked(prompts, marks)
        if not prompts:
            raise ValueError(f"{dataset}: the texts of its marked pairs are among its answers no more; mark some anew")
    attributes = known_attributes(prompts)
    compared = [preferences(prompt, words, attributes) for prompt in prompts]
    if not any(compared):
        raise ValueError(
            f"{dataset}: nothing says which text is better; let the run score with objects or correctness, or "
            "give a vocabulary"
        )
    table = lines(prompts, compared, samples)
    if not table:
        raise ValueError(f"{dataset}: holds no score to compare; name a scorer with --clip or --reward-model")
    typer.echo(markdown(table), nl=False)
    if json_file is not None:
        json_file.write_text(json.dumps(records(table), indent=2) + "\n")


def _marks(run: str) -> Marks:
    marks = read_marks(Path(run))
    if not set(marks.values()) & {ACCEPT, SWAP}:
        raise ValueError(
            f"{run}: no pair of it is marked as accepted or swapped in {FILE}; look at its pairs with "
            f"python -m pipeline.browse {run}, where the keys a and s mark one"
        )
    return marks


def _scorers(clips: list[str], models: list[str], base: str | None) -> Iterator[tuple[str, Scorer]]:
    """Scorers, with a title that tells several of a kind apart."""
    from reward.models.reward_checkpoint import ADAPTER_CONFIG, find
    from reward.scorers.clip import ClipScorer
    from reward.scorers.reward_model import RewardModelScorer

    for folder in clips:
        yield f"clip:{Path(folder).name}", ClipScorer(folder)
    for folder in models:
        adapter = find(folder, ADAPTER_CONFIG) is not None
        scorer = RewardModelScorer(folder, dtype=this_machine().dtype, base=base if adapter else None)
        yield f"reward_model:{Path(folder).name}", scorer


def _vocabulary(name: str) -> Vocabulary:
    if name == "coco":
        return coco_vocabulary.VOCABULARY
    if ":" in name and not Path(name).exists():
        module, _, attribute = name.partition(":")
        try:
            vocabulary = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"vocabulary {name}: cannot be imported ({error})") from error
        if not isinstance(vocabulary, Vocabulary):
            raise ValueError(f"vocabulary {name}: is no reward.text.object_vocabulary.Vocabulary")
        return vocabulary
    return vocabulary_file.read(Path(name), "1")


app = command(main, named=(ValueError,))

if __name__ == "__main__":
    app()
