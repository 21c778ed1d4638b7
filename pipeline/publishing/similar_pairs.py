"""The most similar other image of every published pair, and the answer that is good for it: SymMPO's columns.

Another pair's image and chosen text, where that pair is asked the very same, in all messages, and its chosen text is
another answer (``reward.text.same_text``). Which pair it is depends on the pairs of all shards and on nothing else:
neither on how they lie in shards nor on how many processes looked at the images. Of equally similar ones the first by
id is taken.

In memory are the vectors of the images, those of one prompt twice, and the chosen texts: of 100,000 pairs and 512
numbers an image 400 MB and the texts. Images are read where they are written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.base.tables import IMAGE
from pipeline.publishing import by_id, embed_stage
from pipeline.publishing.curated import Curation
from pipeline.publishing.final_images import FinalImages
from pipeline.publishing.nearest_pairs import nearest
from pipeline.running.store import Run
from reward.text.same_text import identity

_Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class SimilarPairs:
    """Of N pairs, shard after shard: ``begins`` is the place of a shard's first one, ``places`` int64 [N] that of the
    pair with the similar image, -1 for none. ``shards`` and ``rows`` int64 [N] say where the images of a pair lie in
    the source, ``texts`` are the chosen ones. State: ``final``, the images that were read last."""

    run: Run
    final: FinalImages
    begins: Mapping[int, int]
    places: Ints
    shards: Ints
    rows: Ints
    texts: Any

    @classmethod
    def of(cls, run: Run, embed: bool) -> SimilarPairs:
        """``embed``: as of ``FinalImages``.

        Raises:
            InputError: the images have no vectors.
        """
        pairs = _Pairs()
        curate = Curation.of(run)
        for shard in run.shards("source"):
            pairs.add(run, shard, curate)
        homes = np.array(pairs.homes, np.int64).reshape(-1, 2)
        texts = pa.concat_arrays([pa.array([], pa.string()), *pairs.texts])
        return cls(run, FinalImages(embed), pairs.begins, pairs.nearest(), homes[:, 0], homes[:, 1], texts)

    @property
    def number(self) -> int:
        """How many pairs have a similar image."""
        return int((self.places >= 0).sum())

    def add_columns(self, table: pa.Table, shard: int, at: Ints) -> pa.Table:
        """``table`` with ``similar_images`` and ``similar_chosen``, both empty where there is none; its rows are the
        pairs ``at`` of a shard.

        Raises:
            InputError: a file that is to be copied is gone; the message names the row.
        """
        places = self.places[self.begins[shard] + at]
        has = places >= 0
        images = self.final.column(columns.whole(table["id"]), self._images(places, has))
        chosen = answers(self.texts.take(pa.array(places[has])), has)
        return table.append_column("similar_images", images).append_column("similar_chosen", chosen)

    def _images(self, places: Ints, has: columns.Bools) -> Any:
        """Those of the pairs at ``places``; null where there is none."""
        wanted = places[has]
        parts: list[Any] = [pa.array([], pa.list_(IMAGE))]
        order = np.empty(len(wanted), np.int64)
        taken = 0
        for shard in np.unique(self.shards[wanted]).tolist():
            here = np.flatnonzero(self.shards[wanted] == shard)
            images = self.run.read("source", shard)["images"].take(pa.array(self.rows[wanted[here]]))
            parts.append(columns.whole(images))
            order[here] = taken + np.arange(len(here))
            taken += len(here)
        index = np.zeros(len(places), np.int64)
        index[has] = order
        return pa.concat_arrays(parts).take(pa.array(index, mask=~has))


@dataclass
class _Pairs:
    """What tells of pairs which others may be theirs; lists are aligned. ``askings`` is the same for pairs that are
    asked the same about as many images, None for one without images, or whose images could not be looked at."""

    begins: dict[int, int] = field(default_factory=dict)
    ids: list[tuple[str, int]] = field(default_factory=list)
    askings: list[bytes | None] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    homes: list[tuple[int, int]] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    vectors: dict[bytes, _Vector] = field(default_factory=dict)

    def add(self, run: Run, shard: int, curate: Curation) -> None:
        source, sample, embedded = (run.read(stage, shard) for stage in ("source", "sample", embed_stage.NAME))
        pairs = curate.published_pairs(run.read("pair", shard), sample)
        ids = columns.whole(pairs["id"])
        of_source, of_sample, of_embedded = (
            by_id.places(ids, table, stage)
            for table, stage in ((source, "source"), (sample, "sample"), (embedded, embed_stage.NAME))
        )
        first = columns.starts(columns.counts(sample["candidates"]))[of_sample.to_numpy()]
        chosen = columns.items(sample["candidates"], "text").take(pa.array(first + columns.ints(pairs["chosen"], -1)))
        prompts = source["prompt"].take(of_source).to_pylist()
        looked_at = embedded.select(["digests", "vectors"]).take(of_embedded)
        digests = [b"".join(each or ()) for each in looked_at["digests"].to_pylist()]
        for image, vector in zip(digests, _vectors(looked_at["vectors"]), strict=True):
            if image and image not in self.vectors:
                self.vectors[image] = vector.copy()
        self.begins[shard] = len(self.ids)
        self.ids += zip(ids.to_pylist(), pairs["pair"].to_pylist(), strict=True)
        self.images += digests
        self.askings += [
            _digest([len(image), [[message["role"], message["content"]] for message in prompt]]) if image else None
            for image, prompt in zip(digests, prompts, strict=True)
        ]
        self.answers += [_digest(identity(text)) for text in chosen.to_pylist()]
        self.homes += [(shard, row) for row in of_source.to_pylist()]
        self.texts.append(columns.whole(chosen))

    def nearest(self) -> Ints:
        """Of every pair the place of the other one, -1 for none."""
        groups: dict[bytes, list[int]] = {}
        for place in sorted(range(len(self.ids)), key=self.ids.__getitem__):
            if (asking := self.askings[place]) is not None:
                groups.setdefault(asking, []).append(place)
        result = np.full(len(self.ids), -1)
        for members in groups.values():
            images = [self.images[place] for place in members]
            rows = {image: row for row, image in enumerate(dict.fromkeys(images))}
            if len(rows) < 2:
                continue
            found = nearest(
                np.stack([self.vectors[image] for image in rows]),
                np.array([rows[image] for image in images]),
                _codes([self.answers[place] for place in members]),
            )
            at = np.array(members)
            result[at] = np.where(found >= 0, at[found], -1)
        return result


def answers(texts: Any, has: columns.Bools | None = None) -> pa.Array:
    """A conversation of one message for every text; of rows where ``has`` is false, of none."""
    role = pa.array(["assistant"] * len(texts), pa.string())
    messages = pa.StructArray.from_arrays([role, columns.whole(texts)], names=["role", "content"])
    return columns.lists(np.ones(len(texts), np.int64) if has is None else has.astype(np.int64), messages)


def _vectors(of_images: Any) -> list[_Vector]:
    """Of every row the vectors of its images, one after the other: their product with another row's is the sum of the
    cosines."""
    images, widths = columns.counts(of_images), columns.counts(columns.items(of_images))
    values = columns.items(columns.items(of_images)).to_numpy()
    ends = columns.starts(widths)[columns.starts(images)]
    return [values[begin:end] for begin, end in pairwise(ends.tolist())]


def _codes(values: Sequence[bytes]) -> Ints:
    codes: dict[bytes, int] = {}
    return np.array([codes.setdefault(value, len(codes)) for value in values])


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).digest()
