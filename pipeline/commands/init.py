"""A recipe from a folder: ``vlm-preference init FOLDER``."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from pipeline.base.errors import UserError
    from pipeline.commands.folder_sources import FolderSource

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
#: Of what else is in a folder.
MOST_NOTES = 5
#: In place of names of objects: texts are read as they are.
ANYTHING = "anything"


def main(
    folder: Annotated[Path, typer.Argument(help="With images, annotations, tables, pairs, tars or a saved dataset.")],
    out: Annotated[Path, typer.Option(help="Where the recipe is written.")] = Path("recipe.yaml"),
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where annotated images lie, if not below FOLDER.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder, hub id or built-in name of who answers.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Asked about images that have no prompt of their own.")] = None,
    objects: Annotated[
        str | None,
        typer.Option(
            help="What may be in the images: coco, a JSON file of words, words with commas between, or anything."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing and take the defaults.")] = False,
) -> None:
    """Write a commented recipe for what a folder holds, to start from.

    What cannot be seen is asked: what may be in the images, and which model answers. Without a terminal the defaults
    are taken.
    """
    from pipeline.base.errors import ConfigError
    from pipeline.base.files import write_text
    from pipeline.commands.folder_sources import contents, unreadable
    from pipeline.commands.recipe_text import Answers, reads_words, recipe_text
    from pipeline.recipe.recipe import run_name
    from pipeline.sources.config import DESCRIBE

    asks = not yes and _at_terminal()
    words_file = out.with_name(f"{out.stem}.words.json")
    for path in (out, words_file):
        if path.exists() and not (asks and typer.confirm(f"{path} is there. Write over it?", default=False, err=True)):
            raise ConfigError(f"{path} is there already", "give --out another name, or move it away")
    sources, notes = contents(folder, images)
    source = sources[_choice(sources) if asks and len(sources) > 1 else 0]
    typer.echo(f"{source.title}: {_about(source)}", err=True)
    if broken := unreadable(source):
        notes.insert(0, broken)
    _tell(notes)

    def answer(question: str, given: str | None, default: str) -> str:
        if given is not None or not asks:
            return default if given is None else given
        return str(typer.prompt(question, default=default, err=True)).strip() or default

    bare = "prompts" in source.options or source.kind == "coco"
    text = answer("What is asked about each image?", prompt, DESCRIBE[0]) if bare else DESCRIBE[0]
    vocabulary = words = None
    if reads_words(source):
        named = answer(
            f"What may be in the images? (coco, a JSON file, words with commas between, or {ANYTHING})",
            objects,
            _vocabulary_of(source),
        )
        vocabulary, words = _vocabulary(source, named, words_file)
    elif objects is not None:
        _tell([f"--objects is not needed: the answers of {source.title} say what is right, and no word is looked for"])
    who = answer("Which model answers? (folder or hub id)", model, MODEL)
    name = run_name(folder.resolve().name) or "mine"
    others = [other for other in sources if other is not source]
    recipe = recipe_text(source, others, Answers(name, who, text, vocabulary))
    _tell(_check(recipe, words, out, words_file, who))
    if words is not None:
        write_text(words_file, words)
        typer.echo(f"{words_file}: add other words for the same objects, so that texts are understood", err=True)
    write_text(out, recipe)
    typer.echo(f"{out}\n  vlm-preference plan {shlex.quote(str(out))}", err=True)


def _tell(notes: Sequence[object]) -> None:
    for note in notes[:MOST_NOTES]:
        typer.echo(f"note: {note}", err=True)
    if len(notes) > MOST_NOTES:
        typer.echo(f"note: and {len(notes) - MOST_NOTES} more of the kind", err=True)


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _choice(sources: list[FolderSource]) -> int:
    for number, source in enumerate(sources, 1):
        typer.echo(f"  {number}  {source.title}: {_about(source)}", err=True)
    which = 0
    while not 1 <= which <= len(sources):
        which = int(typer.prompt("Which of them?", type=int, default=1, err=True))
    return which - 1


def _about(source: FolderSource) -> str:
    """What is known of its images."""
    shown = ", ".join(source.objects[:6]) + (", ..." if len(source.objects) > 6 else "")
    parts = [f"objects ({shown})"] if source.objects else ["regions"] if source.regions else []
    parts += ["right answers"] if source.answers else []
    parts += ["two answers to each prompt"] if source.kind == "pds" else []
    return " and ".join(parts) or "nothing is known of what the images show"


def _vocabulary_of(source: FolderSource) -> str:
    """The built-in vocabulary that knows all objects of the facts; else their names, with commas between."""
    from pipeline.scoring.vocabularies import BUILT_IN, built_in

    if not source.objects:
        return "coco" if source.regions else ANYTHING
    fits = (name for name in reversed(BUILT_IN) if all(built_in(name).canonical(word) for word in source.objects))
    return next(fits, ", ".join(source.objects))


def _vocabulary(source: FolderSource, named: str, file: Path) -> tuple[str | None, str | None]:
    """What the recipe names, and what ``file`` must then hold.

    Raises:
        ConfigError: the facts' objects need words, and none are given.
    """
    import json

    from pipeline.base.errors import ConfigError
    from pipeline.scoring.vocabularies import BUILT_IN
    from reward.text.coco_vocabulary import plural

    if named == ANYTHING:
        if source.objects or source.regions:
            raise ConfigError(f"--objects {ANYTHING}: what is known of the images names objects", "give their words")
        return None, None
    if named in BUILT_IN or Path(named).suffix == ".json":
        return named, None
    names = [word for part in [*named.split(","), *source.objects] if (word := " ".join(part.lower().split()))]
    forms = {name: name for name in names}
    forms |= {plural(name): name for name in names if plural(name) not in forms}
    return str(file), json.dumps(forms, indent=1, ensure_ascii=False) + "\n"


def _check(recipe: str, words: str | None, out: Path, words_file: Path, model: str) -> list[UserError]:
    """That the recipe is one, before it is written; returns why a model of the hub cannot be had here and now, which is
    no reason against the recipe.

    Raises:
        PipelineError: it is none, or names a model or a file that is not there.
    """
    from pipeline.base.config_file import load
    from pipeline.base.model_names import looks_local
    from pipeline.recipe import preflight
    from pipeline.recipe.plan import Plan
    from training import job
    from training.config.recipe import WholeRecipe

    with tempfile.TemporaryDirectory() as folder:
        path, beside = Path(folder, out.name), Path(folder, words_file.name)
        if words is not None:
            beside.write_text(words, encoding="utf-8")
        path.write_text(recipe, encoding="utf-8")
        overrides = [f"output_dir={folder}"]
        if words is not None:
            group = next(name for name in ("claims", "facts", "objects") if f"\n  {name}:" in recipe)
            overrides.append(f"score.{group}.vocabulary={beside}")
        whole = load(WholeRecipe, path, overrides, what="the recipe")
        plan = Plan(whole, job.evaluation_of(whole))
        job.check(plan)
        of_hub = "/" in model and not looks_local(model) and not Path(model).exists()
        wrong = preflight.problems(plan)
        notes = [problem for problem in wrong if of_hub and repr(model) in str(problem)]
        preflight.raise_all(problem for problem in wrong if problem not in notes)
        return notes


app = command(main)

if __name__ == "__main__":
    app()
