"""What a run starts from and what it reads, by content: another model or other rows under the same name show."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from reward.forward.prompt import Prompt
from training.config import TrainConfig
from training.data.pairs import Pair, PairDataset

#: Keys of a model's configuration that say how it was saved, and nothing about what it computes.
_ASIDE = frozenset({"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"})


@dataclass(frozen=True, slots=True)
class Start:
    """Digests of the starting model: its weights, its configuration, and how its processor reads images."""

    weights: str
    config: str
    processor: str


@dataclass(frozen=True, slots=True)
class Rows:
    """``pairs`` in their order have the digest ``ordered``, in any order ``unordered``. ``probed`` is ``ordered`` with
    what is only measured (``probe_image``), as earlier versions wrote it down; None where nothing is."""

    pairs: int
    ordered: str
    unordered: str
    probed: str | None = None

    def change(self, was: Mapping[str, Any]) -> str | None:
        """What has happened to rows that ``was`` (such a digest as a mapping) is of; None if nothing has."""
        if was.get("ordered") in {self.ordered, self.probed} - {None}:
            return None
        if was.get("unordered") == self.unordered:
            return "has the same rows in another order"
        return f"has other rows ({was.get('pairs')} before, {self.pairs} now)"


@dataclass(frozen=True, slots=True)
class Identity:
    """All that a run depends on beside its options; ``data`` by the key of the configuration that names it."""

    start: Start
    data: Mapping[str, Rows]

    def as_json(self) -> dict[str, Any]:
        data = {key: asdict(rows) for key, rows in self.data.items()}
        for rows in data.values():
            del rows["probed"]  # what is trained on is the same without it
        return {"start": asdict(self.start), "data": data}


def start_of(model: nn.Module, processor: Any) -> Start:
    """Of a model as it was loaded, before anything was added to it."""
    return Start(weights_digest(model), config_digest(model), processor_digest(processor))


def rows_of(dataset: PairDataset) -> Rows:
    """Of all that is read from a dataset: prompts, images, rejected images and answers, as tokens and pixels."""
    return _rows(dataset.pairs)


def trained_rows(dataset: PairDataset, config: TrainConfig) -> Rows:
    """``rows_of`` what is trained on: a corrupted image that is only measured changes no weight."""
    if not config.probes:
        return rows_of(dataset)
    trained = _rows(replace(pair, corrupted=None) for pair in dataset.pairs)
    return replace(trained, probed=rows_of(dataset).ordered)


def _rows(pairs: Iterable[Pair]) -> Rows:
    each = [pair_digest(pair) for pair in pairs]
    return Rows(len(each), _join(each), _join(sorted(each)))


def pair_digest(pair: Pair) -> bytes:
    """Of everything a forward pass reads of a pair. Images count by their pixels (``Prompt.images``); one that is drawn
    from them counts by them and by what it is drawn from, the pair's ``id``."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([pair.id, pair.chosen_text]).encode())
    for prompt in (pair.prompt, pair.corrupted, pair.similar):
        _add(digest, prompt)
    for ids in (pair.chosen_ids, pair.rejected_ids, pair.similar_ids):
        _add_ids(digest, ids)
    return digest.digest()


def weights_digest(model: nn.Module) -> str:
    """A hash of every parameter and buffer, with names, wherever they were loaded from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_digest(model: nn.Module) -> str:
    """Of the class and the configuration: the same weights compute something else with another ``rope_theta``."""
    config: Any = model.config
    return _of_json([type(model).__name__, _strip(config.to_dict())])


def processor_digest(processor: Any) -> str:
    """Of how images become what the model reads; of texts, the tokens themselves are compared."""
    options = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("images_kwargs", {})
    return _of_json([type(processor).__name__, processor.image_processor.to_dict(), options])


def _strip(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strip(inner) for key, inner in value.items() if key not in _ASIDE}
    return [_strip(inner) for inner in value] if isinstance(value, list | tuple) else value


def _add(digest: Any, prompt: Prompt | None) -> None:
    if prompt is None:
        digest.update(b"-")
        return
    digest.update(json.dumps([prompt.images, prompt.grids]).encode())
    _add_ids(digest, prompt.ids)
    for key, values in sorted(prompt.keys.items()):
        digest.update(key.encode())
        _add_ids(digest, values)


def _add_ids(digest: Any, ids: tuple[int, ...]) -> None:
    digest.update(f"|{len(ids)}|".encode() + array("q", ids).tobytes())


def _join(digests: list[bytes]) -> str:
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _of_json(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
