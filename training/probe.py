"""Does a model's preference look at the image: ``python -m training.probe MODEL --dataset DIR --output DIR``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.command import command


def main(
    model: Annotated[str, typer.Argument(help="Folder, built-in name or hub id; safetensors weights.")],
    dataset: Annotated[str, typer.Option(help="Pairs in any schema of training.formats; best not trained on.")],
    output: Annotated[Path, typer.Option(help="Where log-probs and probe.json go.")],
    reference: Annotated[
        str | None, typer.Option(help="The model before training: answers count by implicit reward, and drift shows.")
    ] = None,
    conditions: Annotated[
        str, typer.Option(help="What is shown beside the true image, of swapped, none, corrupted.")
    ] = "swapped,none,corrupted",
    limit: Annotated[int | None, typer.Option(min=1, help="Pairs to probe; fewer are among more.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of pairs and of the corruption.")] = 0,
    corruption: Annotated[
        str, typer.Option(help="The trainer's, as YAML: a kind, or {kind: gaussian, strength: 0.5}.")
    ] = "crop",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per forward pass.")] = 16,
    image_root: Annotated[
        str | None,
        typer.Option(help="What image paths are relative to and may not leave; default: the dataset's folder."),
    ] = None,
) -> None:
    """Log-probs of chosen and rejected answers beside the true image, another pair's, none, and a corrupted one.

    The same command again reads what is there. docs/evaluation.md says what the numbers mean.
    """
    # Heavy imports stand here: --help answers without torch.
    from pipeline.base.lock import locked
    from training.evaluation.probing.probing import probe
    from training.evaluation.probing.request import ProbeRequest

    named = tuple(filter(None, (name.strip() for name in conditions.split(","))))
    changed = _corruption(corruption)
    request = ProbeRequest(
        model, dataset, output, reference, named, limit, seed, changed, batch_size, image_root=image_root
    )
    with locked(output, "python -m training.probe"):
        typer.echo(table(probe(request)))


def _corruption(text: str) -> Any:
    """
    Raises:
        ConfigError: it is none.
    """
    from pipeline.base import config_file
    from pipeline.base import yaml_file as read
    from pipeline.base.errors import ConfigError
    from training.config import Corruption

    try:
        value = read.text(text)
        return config_file.make(Corruption, value if isinstance(value, Mapping) else {"kind": value})
    except (ConfigError, read.BadYaml) as error:
        raise ConfigError(f"--corruption {read.excerpt(text)} is none: {error}", "see docs/corruption.md") from error


def table(content: Mapping[str, Any]) -> str:
    """Markdown: every metric of ``probe.json`` with its interval.

    >>> metrics = {"accuracy_true": {"value": 0.75, "interval": [0.5, 1.0]}}
    >>> print(table({"pairs": 4, "conditional": {"metrics": metrics}}).splitlines()[-1])
    | accuracy_true | 0.750 | 0.500 .. 1.000 |
    """
    lines = [f"{content['pairs']} pairs", "", "| metric | value | 95 % |", "|---|---|---|"]
    for part in ("conditional", "drift"):
        prefix = "" if part == "conditional" else f"{part} "
        for name, metric in content.get(part, {}).get("metrics", {}).items():
            value, interval = metric["value"], metric["interval"]
            low_high = "-" if interval is None else f"{interval[0]:.3f} .. {interval[1]:.3f}"
            lines.append(f"| {prefix}{name} | {'-' if value is None else f'{value:.3f}'} | {low_high} |")
    return "\n".join(lines)


app = command(main, named=(ValueError,))

if __name__ == "__main__":
    app()
