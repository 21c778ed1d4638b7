"""The Arrow schema of every table a run writes.

One row per prompt, joined by ``id``; only ``pairs`` may hold several rows for one id (one per pair). Image bytes live
in ``prompts`` and in the published dataset only. Every table carries the same three status columns: a failure is a row
with a reason, never an empty text and never a missing row.

This module imports neither torch, Ray nor vLLM.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

#: Raised whenever a column changes its name, type or meaning; part of every stage's fingerprint.
SCHEMA_VERSION = 2

#: The encoded file (PNG, JPEG, ...), never decoded pixels: the encoding of ``datasets.Image``.
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

#: A box is ``[x0, y0, x1, y1]``, each a fraction of the image's width or height, origin at the top left.
BOX = pa.list_(pa.float32())
OBJECT = pa.struct(
    [("name", pa.string()), ("count", pa.int32()), ("attributes", pa.list_(pa.string())), ("boxes", pa.list_(BOX))]
)
REGION = pa.struct([("phrase", pa.string()), ("box", BOX)])
#: What is known to be true of the images. ``answer`` and ``question_type`` (existence, attribute, count, relation)
#: are null for open prompts such as "Describe the image."
FACTS = pa.struct(
    [
        ("objects", pa.list_(OBJECT)),
        ("regions", pa.list_(REGION)),
        ("captions", pa.list_(pa.string())),
        ("question_type", pa.string()),
        ("answer", pa.string()),
    ]
)

#: An edit of the parent's text: characters ``[start, end)`` held ``old`` and now hold ``new``.
EDIT = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("old", pa.string()), ("new", pa.string())])
CANDIDATE = pa.struct(
    [
        ("text", pa.string()),
        ("origin", pa.string()),  # sampled | corrected | injected | restyled | given
        ("parent", pa.int32()),  # index into the same row's candidates; null for an original
        ("model", pa.string()),
        ("revision", pa.string()),
        ("seed", pa.int64()),
        ("temperature", pa.float64()),
        ("n_tokens", pa.int32()),
        ("finish_reason", pa.string()),  # stop | length
        ("logprob", pa.float64()),  # nats, summed over the text's tokens
        ("on_policy", pa.bool_()),  # by the very model that is to be trained; null for texts nobody sampled
        ("edits", pa.list_(EDIT)),
    ]
)

#: Values are raw (never thresholded), aligned to the row's candidates; null where the scorer does not apply.
SCORE = pa.struct([("name", pa.string()), ("version", pa.string()), ("values", pa.list_(pa.float64()))])

_STATUS = [("status", pa.string()), ("error_type", pa.string()), ("error", pa.string())]

PROMPTS = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("prompt", pa.list_(MESSAGE)),
        ("facts", FACTS),
        ("source", pa.string()),
        *_STATUS,
    ]
)
CANDIDATES = pa.schema([("id", pa.string()), ("candidates", pa.list_(CANDIDATE)), *_STATUS])
SCORES = pa.schema([("id", pa.string()), ("scores", pa.list_(SCORE)), *_STATUS])
#: ``chosen`` and ``rejected`` are indices into the row's candidates, null where the prompt yielded no pair; then
#: ``reason`` says why. ``reason`` is null for a pair.
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("chosen", pa.int32()),
        ("rejected", pa.int32()),
        ("policy", pa.string()),
        ("chosen_score", pa.float64()),
        ("rejected_score", pa.float64()),
        ("margin", pa.float64()),
        ("reason", pa.string()),
        *_STATUS,
    ]
)

OK: dict[str, Any] = {"status": "ok", "error_type": None, "error": None}


def failed(error_type: str, error: str) -> dict[str, Any]:
    """The status columns of a row that failed.

    >>> failed("unreadable_image", "row 3: truncated PNG")["status"]
    'failed'
    """
    return {"status": "failed", "error_type": error_type, "error": error}
