"""The data card of a published dataset, written from the run's own artefacts and nothing else.

The same run gives the same bytes: a card holds no dates and no timings (the report does).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined

from pipeline.base import secrets
from pipeline.base.config import flatten
from pipeline.base.local_paths import base_name, shorten_options, shorten_paths
from pipeline.blindness import in_words
from pipeline.publishing import markdown
from pipeline.publishing.card_header import header, licence_of
from pipeline.publishing.collect import collect
from pipeline.publishing.findings import Findings, Kind, Lengths, Spread, makes_data, steps
from pipeline.publishing.gaps import gaps
from pipeline.publishing.outcomes import PAIRED, UNFINISHED
from pipeline.publishing.style import Style
from pipeline.publishing.value_counts import Tally
from pipeline.running.joined import Example
from pipeline.running.store import Record, Run, as_run
from pipeline.scoring.run_dtype import sentence
from reward.answers.match_answer import right

TEMPLATE = Path(__file__).parents[2] / "data_cards" / "template.md"

EXAMPLES = 3
_BAR_WIDTH = 24
#: Stands where there is no value.
_NONE = "–"
_BINS = 8
_NO_LICENCE = {"license_name": None, "license_link": None}


def render(
    run: Run | Path,
    recipe: Mapping[str, Any],
    command: str,
    findings: Findings | None = None,
    content: str | None = None,
    pictures: Collection[str] = (),
) -> str:
    """The card as Markdown with a Hugging Face YAML header.

    ``recipe`` is the run's recipe as plain data, ``command`` what made the run. Values of secret-looking options are
    masked in both, and the folders of this machine left out; no environment variable is read. ``findings`` are those of
    the run if they are known already. ``content`` identifies the published rows, ``pictures`` are the files beside the
    card (``pipeline.publishing.card_pictures``).

    Raises:
        InputError: the run has no source table (see ``pipeline.publishing.collect.collect``).
    """
    run = as_run(run)
    findings = findings or collect(run)
    records = _data_records(run)
    recipe = shorten_options(secrets.options(recipe))
    publish = {"authors": (), "citation": None, **(recipe.get("publish") or {})}
    published = {"local_images": 0, "remote_images": 0, **(record.extras if (record := run.record("publish")) else {})}
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        inline=markdown.inline,
        code=markdown.code,
        quote=markdown.quote,
        block=markdown.block,
        link=markdown.link,
        percent=_percent,
        counted=_counts_text,
        shown=_shown,
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        header=header(findings, recipe, content),
        licence={**_NO_LICENCE, **licence} if (licence := licence_of(recipe)) else None,
        publish=publish,
        published=published,
        pictures=sorted(pictures),
        name=recipe.get("name") or run.path.name,
        findings=findings,
        outcomes=outcome_rows(findings),
        sources=_most(findings.sources),
        models=model_rows(findings),
        on_policy_pairs=_on_policy_pairs(findings.paired),
        trusted=sorted({base_name(model) for record in records for model in trusted_models(record.options)}),
        sampling=_flat(recipe.get("sample", {})),
        seed=recipe.get("seed"),
        precision=sentence(recipe),
        pairing=_flat(recipe.get("pair", {})),
        ranking=ranking(recipe.get("pair", {})),
        stages=[_stage_row(record) for record in records],
        gaps=gaps(records),
        histograms={name: histogram(spread) for name, spread in findings.scores.items() if spread.every},
        lengths=_lengths(findings.lengths),
        style=style_rows(findings.style),
        masked=style_masked(findings.style),
        blindness=in_words.section(findings.blindness),
        examples=[_example(example) for example in findings.some(EXAMPLES)],
        recipe=yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=110).rstrip(),
        versions=versions(records),
        command=shorten_paths(secrets.text(command)),
    )


def ranking(pair: Mapping[str, Any]) -> list[str]:
    """How candidates are ranked and which are barred, in sentences; ``pair`` is that part of a recipe.

    >>> ranking({"weights": {"a": 1.0, "b": -0.5}, "vetoes": {"b": {"above": 0}}})
    ['Candidates are ranked by 1 × `a` − 0.5 × `b`.', 'A candidate with `b` above 0 is never chosen.']
    """
    weights = {name: weight for name, weight in (pair.get("weights") or {}).items() if weight}
    terms = [
        f"{'−' if weight < 0 else '+'} {abs(weight):g} × {markdown.code(name)}" for name, weight in weights.items()
    ]
    sentences = []
    if terms:
        each = ", each standardised among the able candidates of its prompt" if pair.get("standardise") else ""
        sentences.append(f"Candidates are ranked by {' '.join(terms).removeprefix('+ ')}{each}.")
    never = {"chosen": "never chosen", "rejected": "never rejected", "both": "in no pair"}
    for name, veto in (pair.get("vetoes") or {}).items():
        bounds = [f"{key} {veto[key]:g}" for key in ("above", "below") if veto.get(key) is not None]
        bars = never[veto.get("bars", "chosen")]
        sentences.append(f"A candidate with {markdown.code(name)} {' or '.join(bounds)} is {bars}.")
    return sentences


def outcome_rows(findings: Findings) -> list[tuple[str, int]]:
    """What became of the prompts: pairs first, then reasons by frequency; the counts add up to ``findings.prompts``."""
    rest = sorted(
        ((reason, number) for reason, number in findings.outcomes.items() if reason != PAIRED),
        key=lambda row: (row[0] == UNFINISHED, row[0].startswith("failed in"), -row[1], row[0]),
    )
    return [(PAIRED, findings.outcomes[PAIRED]), *rest]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """The texts of one model, most frequent values first. ``on_policy`` is a share; None if no text says whether it
    is."""

    model: str
    revision: str
    candidates: int
    on_policy: float | None
    chosen: int
    rejected: int
    temperatures: Mapping[float | None, int]
    finish_reasons: Mapping[str, int]


def model_rows(findings: Findings) -> list[ModelRow]:
    """Every model and revision, the one with most texts first."""
    names = sorted(findings.models, key=lambda name: (-findings.models[name], name))
    return [_model(findings, *name) for name in names]


def _model(findings: Findings, model: str, revision: str) -> ModelRow:
    def of(kind: Kind) -> bool:
        return (kind.model, kind.revision) == (model, revision)

    texts = {kind: number for kind, number in findings.texts.items() if of(kind)}
    sides = [sum(number for pair, number in findings.paired.items() if of(pair[side])) for side in (0, 1)]
    temperatures: Counter[float | None] = Counter()
    finish_reasons: Counter[str] = Counter()
    on_policy: Counter[bool | None] = Counter()
    for kind, number in texts.items():
        temperatures[kind.temperature] += number
        finish_reasons[kind.finish_reason] += number
        on_policy[kind.on_policy] += number
    recorded = on_policy[True] + on_policy[False] > 0
    return ModelRow(
        model,
        revision,
        candidates=sum(texts.values()),
        on_policy=on_policy[True] / on_policy.total() if recorded else None,
        chosen=sides[0],
        rejected=sides[1],
        temperatures=dict(sorted(temperatures.items(), key=lambda item: (item[0] is None, item[0] or 0.0))),
        finish_reasons=_most(finish_reasons),
    )


def _on_policy_pairs(paired: Mapping[tuple[Kind, Kind], int]) -> dict[str, int] | None:
    """How many pairs have on-policy texts on which side; None if no text says whether it is."""
    if all(kind.on_policy is None for pair in paired for kind in pair):
        return None
    counts = {"both": 0, "chosen": 0, "rejected": 0, "neither": 0}
    for (chosen, rejected), number in paired.items():
        names = {(True, True): "both", (True, False): "chosen", (False, True): "rejected", (False, False): "neither"}
        counts[names[bool(chosen.on_policy), bool(rejected.on_policy)]] += number
    return counts


def trusted_models(options: Mapping[str, Any], model: str = "a model") -> Iterator[str]:
    """The models whose own code the options allowed to run; ``model`` stands in where an option names none.

    >>> list(trusted_models({"model": "a/vlm", "engine.trust_remote_code": True}))
    ['a/vlm']
    """
    flat = flatten(options)
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        if name == "trust_remote_code" and value is True:
            while group and f"{group}.model" not in flat:
                group = group.rpartition(".")[0]
            yield str(flat.get(f"{group}.model" if group else "model", model))
        for entry in value if isinstance(value, list | tuple) else ():
            if isinstance(entry, Mapping):
                yield from trusted_models(entry, str(flat.get("model", model)))


def _most(counts: Mapping[str, int], rows: int = 20) -> dict[str, int]:
    """The most frequent first; those beyond ``rows`` together."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(number for _, number in ordered[rows:])
    return dict(ordered[:rows]) | ({f"{len(ordered) - rows} more": rest} if rest else {})


@dataclass(frozen=True, slots=True)
class Bin:
    """How many values lie in a range: of all candidates, of the chosen and of the rejected ones."""

    label: str
    every: int
    chosen: int
    rejected: int
    bar: str


def histogram(spread: Spread) -> list[Bin]:
    """One bin per value if there are few different ones, else eight of equal width. ``spread.every`` is not empty.

    >>> histogram(Spread("1", Tally([0.0, 0.0, 2.0]), Tally([0.0]), Tally([2.0])))[1].rejected
    1
    """
    distinct, low, high = spread.every.values, spread.every.low, spread.every.high
    if len(distinct) <= _BINS:
        labels = [f"{value:.4g}" for value in distinct.tolist()]
    else:
        edges = [low + (high - low) * i / _BINS for i in range(_BINS + 1)]
        labels = [f"{a:.3g} to {b:.3g}" for a, b in pairwise(edges)]

    def binned(tally: Tally) -> list[int]:
        if len(distinct) <= _BINS:
            place = np.searchsorted(distinct, tally.values)
        else:
            place = np.minimum(((tally.values - low) / (high - low) * _BINS).astype(int), _BINS - 1)
        numbers: list[int] = np.bincount(place, weights=tally.counts, minlength=len(labels)).astype(int).tolist()
        return numbers

    every, chosen, rejected = binned(spread.every), binned(spread.chosen), binned(spread.rejected)
    return [Bin(label, every[i], chosen[i], rejected[i], _bar(every[i] / max(every))) for i, label in enumerate(labels)]


def versions(records: Sequence[Record]) -> dict[str, str]:
    """Package versions as the stages recorded them; of several, the last stage's."""
    recorded = {name: version for record in records for name, version in record.libraries.items()}
    return dict(sorted(recorded.items()))


def _data_records(run: Run) -> list[Record]:
    """Only of stages that made the data: what was trained or evaluated since must not change a dataset's card."""
    return [record for step, record in steps(run).items() if makes_data(step)]


def _stage_row(record: Record) -> dict[str, Any]:
    options = shorten_options(secrets.options(record.options))
    words = ("identit", "model", "revision", "scorers.", "pretrained")
    return {
        "name": record.stage,
        "version": record.version,
        "fingerprint": record.fingerprint,
        "identities": [
            f"{key}: {value}"
            for key, value in options.items()
            if isinstance(value, str)
            and (any(word in key.lower() for word in words) or (key == "policy" and "@" in value))
        ],
    }


def _lengths(words: Lengths) -> dict[str, Any] | None:
    if not len(words.chosen):
        return None
    sides = {"chosen": words.chosen, "rejected": words.rejected}
    return {
        **{side: (tally.mean, tally.median, int(tally.low), int(tally.high)) for side, tally in sides.items()},
        "longer": words.longer,
        "shorter": words.shorter,
        "equal": words.equal,
        "difference": words.difference.mean,
    }


def style_rows(styles: Mapping[str, Style]) -> list[tuple[str, list[str]]]:
    """What is measured of style, and its value for each kind of prompt, in the order of ``styles``; what none of these
    has is left out."""
    rows: list[tuple[str, Callable[[Style], str]]] = [
        ("pairs (measured)", lambda style: f"{style.pairs} ({style.measured})"),
        (
            "AUC of chosen against rejected",
            lambda style: f"– ({style.no_auc})" if style.auc is None else f"{style.auc:.3f}",
        ),
        ("AUC, 95 % interval", lambda style: _range(style.auc_ci)),
        ("log-prob gap per token, nats", lambda style: _number(style.logp_gap)),
        ("log-prob gap, quartiles", lambda style: _range(style.logp_gap_quartiles)),
        ("likelier wins", lambda style: _percent(style.likelier_wins)),
        ("length gap, words", lambda style: _number(style.length_gap)),
        ("longer wins", lambda style: _percent(style.longer_wins)),
        ("edit distance", lambda style: _number(style.edit_distance)),
        ("edit distance, quartiles", lambda style: _range(style.edit_distance_quartiles)),
    ]
    table = [(name, [show(style) for style in styles.values()]) for name, show in rows]
    return [(name, cells) for name, cells in table if set(cells) - {_NONE}]


def style_masked(styles: Mapping[str, Style]) -> str | None:
    """The vocabulary that the classifier did not see."""
    return next((style.masked for style in styles.values()), None)


def _range(values: Sequence[float] | None) -> str:
    return _NONE if values is None else " / ".join(f"{value:.3g}" for value in values)


def _example(example: Example) -> dict[str, Any]:
    facts = example.facts or {}
    return {
        "id": example.id,
        "prompt": example.prompt,
        "objects": ", ".join(thing["name"] for thing in facts.get("objects") or ()),
        "answer": " / ".join(right(facts)),
        "chosen": example.chosen["text"],
        "rejected": example.rejected["text"],
        "scores": [(name, *map(_number, both)) for name, both in example.scores.items() if both != (None, None)],
        "margin": _number(example.margin),
    }


def _flat(options: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested options as (dotted key, value), in the recipe's order."""
    if not isinstance(options, Mapping):
        return [(prefix.rstrip("."), _as_yaml(options))]
    return [row for key, value in options.items() for row in _flat(value, f"{prefix}{key}.")]


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(plain(value), default_flow_style=True, width=math.inf).removesuffix("\n...\n").rstrip()


def plain(value: Any) -> Any:
    """Only what YAML can say by itself: paths and other objects as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _bar(share: float) -> str:
    return "█" * max(round(share * _BAR_WIDTH), int(share > 0))


def _shown(text: str) -> str:
    """A message or a name, without secrets and the folders of this machine."""
    return shorten_paths(base_name(secrets.text(text)))


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f} %"


def _counts_text(counts: Mapping[Any, int]) -> str:
    """
    >>> _counts_text({1.0: 8, None: 2})
    '1.0 (8), – (2)'
    """
    return ", ".join(f"{'–' if value is None else value} ({number})" for value, number in counts.items())
