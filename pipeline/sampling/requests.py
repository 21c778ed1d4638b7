"""How a stage asks a model about rows: their images opened, what is sampled alike sent together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pipeline.base.images import image_files, pixels
from pipeline.engines import protocol as engines
from pipeline.engines.protocol import Engine, Request, Response, Sampling

#: Why a row failed: error type and message.
Failure = tuple[str, str]
#: What ``pictures`` raises.
UNREADABLE = (pixels.BadImage, OSError)

Subject = TypeVar("Subject")


class Requests(Generic[Subject]):
    """Requests to one model, each with its subject: what the answer is about. State: those that were added."""

    def __init__(self) -> None:
        self._batches: dict[Sampling, dict[str, tuple[Subject, Request]]] = {}

    def add(self, subject: Subject, request: Request, sampling: Sampling) -> None:
        """Ids need to be unique among the requests that are sampled alike."""
        self._batches.setdefault(sampling, {})[request.id] = (subject, request)

    def responses(self, model: Engine) -> Iterator[tuple[Subject, Request, Sampling, Response]]:
        """One to every request, in any order; those of one way of sampling are asked at once."""
        for sampling, batch in self._batches.items():
            for response in engines.ask(model, [request for _, request in batch.values()], sampling):
                yield (*batch[response.id], sampling, response)


def pictures(images: Iterable[Mapping[str, Any]]) -> tuple[bytes, ...]:
    """The encoded files of a row's images.

    Raises:
        BadImage, OSError: ``UNREADABLE``; what ``unreadable`` says is then the row's failure.
    """
    return tuple(image_files.load(image) for image in images)


def unreadable(error: Exception) -> Failure:
    """Why a row failed one of whose images raised ``error``.

    >>> unreadable(FileNotFoundError(2, "No such file or directory", "a.png"))
    ('missing_image', 'a.png: No such file or directory')
    """
    if isinstance(error, pixels.BadImage):
        return error.kind, str(error)
    assert isinstance(error, OSError)
    return "missing_image", f"{error.filename}: {error.strerror or error}"


def failure(response: Response) -> Failure | None:
    """Why a response has no completions; None where it has."""
    return None if response.error_type is None else (response.error_type, response.error or "")
