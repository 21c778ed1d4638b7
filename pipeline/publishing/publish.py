"""Write the dataset that others load: ``pairs`` with TRL's columns and provenance, ``candidates`` with every score.

The folder opens with ``datasets.load_from_disk`` (whole, or one config) and ``datasets.load_dataset``, no code of ours
needed. A prompt may have several pairs; ``id`` with ``pair`` (0,
1, ...) names one. The same rows give the same bytes, whenever and by however many workers they were made. Shards are
read one after the other, so memory does not grow with the run.

The folder says itself what it is (``made`` in ``dataset_dict.json``, a digest of all that it holds), and the record of
what is published says which it should be: whatever a killed process has left, one is not taken for the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import files, memory
from pipeline.base import model_names as models
from pipeline.blindness.pair_texts import Drawn
from pipeline.publishing import embed_stage
from pipeline.publishing import style_gate as consistency
from pipeline.publishing.blindness_gate import check, keep, read, watched
from pipeline.publishing.config import TOLD, Publish
from pipeline.publishing.curated import Curation
from pipeline.publishing.dataset_folder import write
from pipeline.publishing.final_images import FinalImages
from pipeline.publishing.measured import content
from pipeline.publishing.no_pairs import no_pairs
from pipeline.publishing.published_rows import candidate_features, candidate_tables, pair_features, pair_tables
from pipeline.publishing.side_scores import score_names
from pipeline.publishing.similar_pairs import SimilarPairs
from pipeline.running.store import Record, Run, changes, fingerprint, make_record

if TYPE_CHECKING:
    from reward.text.object_vocabulary import Vocabulary

TABLES = ("source", "sample", "score", "pair")
#: Changes whenever the same tables may be published as other rows.
ROWS = 5
FOLDER = "dataset"
#: What lies beside the rows and the card, written anew with the card.
_BESIDE = ("pictures", "LICENSE")
#: Says what the folder holds, written last.
_WHOLE = "dataset_dict.json"


@dataclass(frozen=True)
class Published:
    """``reused`` if the folder was already there, made from the same tables. ``local_images`` of the pairs are files of
    this machine, and ``remote_images`` lie at addresses: the folder has only their paths. ``similar`` pairs have a
    similar image; None where nobody asked for them."""

    path: Path
    pairs: int
    candidates: int
    reused: bool
    local_images: int = 0
    remote_images: int = 0
    similar: int | None = None

    def warnings(self) -> Iterator[str]:
        """What keeps others from opening the dataset, with the remedy."""
        if self.local_images:
            yield (
                f"{self.local_images} images of the pairs are files of this machine, so the dataset works on this "
                "machine only (publish.images=embed copies them into it)"
            )
        if self.remote_images:
            yield (
                f"{self.remote_images} images of the pairs lie at addresses, so the dataset works where these can be "
                "read (publish.images=embed copies them into it)"
            )
        if self.similar == 0:
            yield (
                "no pair has a similar image, so train.objective=symmpo cannot be trained on them: no two pairs about "
                "different images are asked the same and have different chosen answers (docs/publishing.md)"
            )


def record(run: Run, spec: Publish, about: str = "") -> Record:
    """What the published folder depends on: the content of the tables, and how it is written; its ``fingerprint`` also
    covers what only the card tells, ``about``."""
    upstream = {name: stage.fingerprint for name in TABLES if (stage := run.record(name)) is not None}
    curation = Curation.of(run)
    upstream |= {**({"card": about} if about else {}), **curation.card_digest()}
    words = masked_vocabulary(spec)
    # A vocabulary counts by its content as well: the card says what a classifier finds that does not see its words.
    decides = {"content": content(run), "masked": words.version if words is not None else None}
    # What was there from the beginning counts; what came later counts where it is set.
    added: dict[str, Any] = {} if spec.max_blindness is None else {"max_blindness": spec.max_blindness}
    if spec.similar is not None:  # what the model is, its vectors tell
        added["similar"] = models.digest(json.dumps(run.digests(embed_stage.NAME)))
    options = {**spec.model_dump(exclude={*TOLD, "max_blindness", "similar"}), **added}
    return make_record("publish", 7, {**options, **decides, **curation.rows_digest()}, upstream)


def reasons(run: Run, spec: Publish) -> list[str]:
    """Why publishing would write the rows again; empty if it would not."""
    old = run.record("publish")
    if old is None:
        return ["never ran"]
    differences = changes(old, record(run, spec))
    return differences or ([] if current(run) is not None else ["unfinished, or the folder is gone"])


def current(run: Run) -> Record | None:
    """What is published, if it is there."""
    published = run.record("publish")
    return (
        published
        if published is not None and published.finished and _says(run.path / FOLDER).get("made") == published.made
        else None
    )


def _says(folder: Path) -> dict[str, Any]:
    """What a published folder says of itself: ``rows`` identifies its rows, ``made`` all of it."""
    try:
        content: dict[str, Any] = json.loads(files.read_text(folder / _WHOLE) or "{}")
    except ValueError:
        return {}
    return content


def rows(published: Record) -> str:
    """What the published rows depend on: neither the card nor the gates, which change no row."""
    options = {key: value for key, value in published.options.items() if not key.startswith("style.")}
    for gate in ("masked", "max_blindness"):
        options.pop(gate, None)
    return fingerprint("publish", ROWS, options, {})


def publish(
    run: Run,
    spec: Publish,
    card: Callable[[str], str],
    about: str = "",
    beside: Callable[[], Mapping[str, bytes]] = dict,
) -> Published:
    """Write ``run.path/dataset``, or leave it if it holds what it should. ``card`` renders its README, given what
    identifies the rows; ``about`` identifies what else it tells; ``beside`` gives the files that it shows, by name.

    Raises:
        InputError: there is not a single pair, or an image that is to be copied is gone.
        StyleGate: chosen and rejected texts differ more in style than ``spec.style`` allows.
        BlindnessGate: they can be told without the image more often than ``spec.max_blindness``.
    """
    target = run.path / FOLDER
    new, old = record(run, spec, about), current(run)
    # Options only: upstream fingerprints may differ though the tables came out the same.
    if old is not None and old.own == new.own:
        if old.fingerprint != new.fingerprint:
            same = replace(new, seconds=old.seconds, rows=old.rows, extras=old.extras)
            run.save(same)
            if read(run) is None:  # published before anybody looked
                _look(run, same)
            made = _describe(target, card, beside(), _says(target)["rows"])
            run.save(replace(same, finished=True, made=made))
        return Published(target, reused=True, **old.extras)
    run.save(new)  # from here on nothing is published, until it is
    partial = target.with_name(target.name + files.PARTIAL)
    files.remove_tree(partial)
    try:
        styles = consistency.of_run(run, masked_vocabulary(spec))
        consistency.write(run, styles, new)  # where the card finds it
        memory.release()
        consistency.check(styles, spec.style)
        scores, images, drawn = score_names(run), FinalImages(spec.images == "embed"), Drawn()
        similar = SimilarPairs.of(run, spec.images == "embed") if spec.similar is not None else None
        tables = watched(pair_tables(run, scores, images, similar), drawn)
        features = pair_features(scores, similar is not None)
        pairs = write(partial / "pairs", features, tables, spec.rows_per_shard)
        if not pairs.rows:
            raise no_pairs(run)
        check(keep(run, drawn, new), spec.max_blindness)
        with_images = spec.images_in_candidates
        final = FinalImages(spec.images == "embed") if with_images else None
        features, tables = candidate_features(with_images), candidate_tables(run, final)
        candidates = write(partial / "candidates", features, tables, spec.rows_per_shard)
        memory.release()
        counts = {"pairs": pairs.rows, "candidates": candidates.rows, **images.outside}
        counts |= {"similar": similar.number} if similar is not None else {}
        run.save(replace(new, extras=counts))  # where the card finds it
        made = _describe(partial, card, beside(), models.digest(f"{pairs.digest} {candidates.digest}"))
        files.replace_folder(partial, target)
    except OSError as error:
        files.remove_tree(partial)
        raise files.disk_error(target, error) from error
    except BaseException:
        files.remove_tree(partial)
        raise
    run.save(replace(new, rows=pairs.rows, extras=counts, finished=True, made=made))
    return Published(target, **counts, reused=False)


def _look(run: Run, of: Record) -> None:
    """Measure the blindness of pairs that are written already."""
    drawn = Drawn()
    for _ in watched(pair_tables(run, score_names(run), FinalImages(False)), drawn):
        pass
    keep(run, drawn, of)


def _describe(folder: Path, card: Callable[[str], str], beside: Mapping[str, bytes], rows: str) -> str:
    """Write what tells of the rows; what identifies all of the folder."""
    readme = card(rows)
    digests = "".join(f" {name}:{hashlib.sha256(data).hexdigest()}" for name, data in sorted(beside.items()))
    made = models.digest(f"{rows} {readme}{digests}")
    for name in _BESIDE:
        files.remove_tree(folder / name) if (folder / name).is_dir() else files.remove(folder / name)
    for name, data in beside.items():
        files.write_atomic(folder / name, lambda file, data=data: file.write(data))  # type: ignore[misc]
    files.write_text(folder / "README.md", readme)
    files.write_text(folder / _WHOLE, json.dumps({"splits": ["pairs", "candidates"], "rows": rows, "made": made}))
    return made


def masked_vocabulary(spec: Publish) -> Vocabulary | None:
    """The objects that the measure of style does not see."""
    if spec.style.vocabulary is None:
        return None
    from pipeline.scoring.vocabularies import vocabulary

    return vocabulary(spec.style.vocabulary, "publish.style.vocabulary")
