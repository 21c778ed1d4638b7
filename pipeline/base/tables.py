"""The Arrow schema of every table a run writes.

One row per prompt, joined by ``id``; only ``pairs`` may hold several rows for one id (one per pair). Image bytes live
in ``prompts``, in ``imagine`` where images are made, and in the published dataset. Every table carries the same three
status columns: a failure is a row with a reason, never an empty text and never a missing row.

This module imports neither torch, Ray nor vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.base.errors import shorten

#: Raised whenever a column changes its name, type or meaning; part of every stage's fingerprint and kept in its record.
#: A run of another one is read, and not gone on with (``pipeline.running.resume.check_schema``).
SCHEMA_VERSION = 4  # 4: ids begin with the images (pipeline.sources.admission.prompt_id)

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
#: are null for open prompts such as "Describe the image." Where several answers are right, ``answers`` holds all of
#: them, the first one included; else it is null.
FACTS = pa.struct(
    [
        ("objects", pa.list_(OBJECT)),
        ("regions", pa.list_(REGION)),
        ("captions", pa.list_(pa.string())),
        ("question_type", pa.string()),
        ("answer", pa.string()),
        ("answers", pa.list_(pa.string())),
    ]
)

#: An edit of the parent's text: characters ``[start, end)`` held ``old`` and now hold ``new``.
EDIT = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("old", pa.string()), ("new", pa.string())])
CANDIDATE = pa.struct(
    [
        ("text", pa.string()),
        ("origin", pa.string()),  # sampled | noised | continued | corrected | injected | restyled | given
        ("parent", pa.int32()),  # index into the row's candidates of the sample table; null for an original
        ("model", pa.string()),
        ("revision", pa.string()),
        ("seed", pa.int64()),
        ("temperature", pa.float64()),
        ("n_tokens", pa.int32()),  # of a continued text, those that follow its beginning; so with logprob
        ("finish_reason", pa.string()),  # stop | length
        ("logprob", pa.float64()),  # nats, summed over the text's tokens
        ("on_policy", pa.bool_()),  # by the very model that is to be trained; null for texts nobody sampled
        ("edits", pa.list_(EDIT)),
    ]
)

#: Values are raw (never thresholded), aligned to the row's candidates; null where the scorer does not apply.
SCORE = pa.struct([("name", pa.string()), ("version", pa.string()), ("values", pa.list_(pa.float64()))])

#: What a scorer could not tell of a row. ``failed``: it has no value for any candidate, for the reason that ``error``
#: gives; otherwise some of its values are null because they are not known, not because they do not apply.
UNKNOWN = pa.struct(
    [("scorer", pa.string()), ("failed", pa.bool_()), ("error_type", pa.string()), ("error", pa.string())]
)

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
#: ``unknown`` is null where every scorer said what it had to say, also in tables of one scorer and in older ones.
SCORES = pa.schema([("id", pa.string()), ("scores", pa.list_(SCORE)), *_STATUS, ("unknown", pa.list_(UNKNOWN))])
#: ``chosen`` and ``rejected`` are indices into the row's candidates, null where the prompt yielded no pair; then
#: ``reason`` says why. ``reason`` is null for a pair. A pair that the length balance leaves out keeps its row, with its
#: reason, possibly beside other pairs of the same prompt.
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
#: What the images of a prompt are to a CLIP model: a unit vector each, in order, and a digest of the encoded file.
EMBEDDINGS = pa.schema(
    [("id", pa.string()), ("digests", pa.list_(pa.binary())), ("vectors", pa.list_(pa.list_(pa.float32()))), *_STATUS]
)
#: What a model that was asked said of candidate ``candidate``, or of the two that it was shown in this order.
#: ``question`` is what about (a criterion, a claim), ``answer`` the text as it came. A verdict with an ``error``
#: (``type: message``) counts for nothing.
VERDICT = pa.struct(
    [
        ("candidate", pa.int32()),
        ("other", pa.int32()),  # null unless two were compared
        ("question", pa.string()),
        ("answer", pa.string()),
        ("p_yes", pa.float64()),  # P(yes) / (P(yes) + P(no)); null unless that was asked for
        ("error", pa.string()),
    ]
)
VERDICTS = pa.schema([("id", pa.string()), ("verdicts", pa.list_(VERDICT)), *_STATUS])

#: What Arrow raises at a value that a column cannot hold; its own errors are of these kinds.
NOT_STORED = (TypeError, ValueError, OverflowError)

OK: dict[str, Any] = {"status": "ok", "error_type": None, "error": None}


def error_status(error_type: str, error: str) -> dict[str, Any]:
    """The status columns of a row that failed.

    >>> error_status("unreadable_image", "row 3: truncated PNG")["status"]
    'failed'
    """
    return {"status": "failed", "error_type": storable(error_type), "error": shorten(storable(error))}


def stage_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of a stage. One that the schema cannot hold (half of a surrogate pair in a text, a number beyond its column)
    is a failed row with error type ``unstorable``; the others stay.

    >>> stage_table([{"id": "a", "chosen": 2**40, **OK}, {"id": "b", "chosen": 1, **OK}], PAIRS)["status"].to_pylist()
    ['failed', 'ok']
    """
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except NOT_STORED:
        return pa.Table.from_pylist([_storable_row(row, schema) for row in rows], schema=schema)


def _storable_row(row: Mapping[str, Any], schema: pa.Schema) -> Mapping[str, Any]:
    for column in schema:
        try:
            pa.array([row.get(column.name)], column.type)
        except NOT_STORED as error:
            return {"id": row["id"], **error_status("unstorable", f"column {column.name} cannot hold it ({error})")}
    return row


def storable(text: str) -> str:
    """The text with halves of surrogate pairs written out: no encoding has them, and file names may."""
    return text.encode("utf-8", "backslashreplace").decode()


#: One image made from a text. ``bytes`` is null where ``error`` says why there is no image; ``facts`` is what was
#: drawn, null where nobody knows.
DRAWN = pa.struct(
    [
        ("bytes", pa.binary()),
        ("seed", pa.int64()),
        ("guidance", pa.float64()),
        ("facts", FACTS),
        ("error_type", pa.string()),
        ("error", pa.string()),
    ]
)
#: Images made from texts, all of them; ``id`` is the text's.
IMAGES = pa.schema([("id", pa.string()), ("text", pa.string()), ("images", pa.list_(DRAWN)), *_STATUS])
#: What becomes of the images of a text. ``scores``, ``reasons`` and ``faithful`` are aligned to them: how well each
#: fits the text (null where there is no image), why it was rejected (null if kept), whether it shows what the text says
#: (null where nobody knows). ``kept`` are indices, best first. ``cut``: the text is longer than the model reads.
RANKED = pa.schema(
    [
        ("id", pa.string()),
        ("scores", pa.list_(pa.float64())),
        ("kept", pa.list_(pa.int32())),
        ("reasons", pa.list_(pa.string())),
        ("faithful", pa.list_(pa.bool_())),
        *_STATUS,
        ("cut", pa.bool_()),
    ]
)
#: What to ask about the kept images: ``image`` is an index into those of the text; ``reason`` says why the question was
#: left out, null if it is asked.
INSTRUCTION = pa.struct(
    [
        ("image", pa.int32()),
        ("text", pa.string()),
        ("question_type", pa.string()),
        ("answer", pa.string()),
        ("reason", pa.string()),
    ]
)
INSTRUCTIONS = pa.schema([("id", pa.string()), ("instructions", pa.list_(INSTRUCTION)), *_STATUS])

#: What was found in characters ``[start, end)`` of a candidate, which are ``words``, in its sentence ``sentence``:
#: ``reward.text.types.Finding``.
FINDING = pa.struct(
    [
        ("candidate", pa.int32()),
        ("sentence", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("verdict", pa.string()),  # hallucination | correct | unclear
        ("kind", pa.string()),  # object | attribute | count | relation; null for a sentence as a whole
        ("words", pa.string()),
        ("reason", pa.string()),
        ("by", pa.string()),  # facts | judge | claims
    ]
)
#: Why nothing came of candidate ``candidate``; ``text`` is what a model proposed, null where there is no such text.
REFUSED = pa.struct(
    [("candidate", pa.int32()), ("text", pa.string()), ("error_type", pa.string()), ("error", pa.string())]
)
#: What is wrong in every text, and what is not; ``refused`` are the texts that could not be looked through.
DETECTED = pa.schema([("id", pa.string()), ("findings", pa.list_(FINDING)), ("refused", pa.list_(REFUSED)), *_STATUS])
#: Candidates made from other candidates, and what of them was not made. Whoever reads ``CANDIDATES`` can read this.
REWRITTEN = pa.schema(
    [("id", pa.string()), ("candidates", pa.list_(CANDIDATE)), ("refused", pa.list_(REFUSED)), *_STATUS]
)
#: Which objects go along with each other in the facts of the whole run, as JSON: one row, the same in every shard.
COOCCURRENCE = pa.schema([("id", pa.string()), ("together", pa.string()), *_STATUS])
