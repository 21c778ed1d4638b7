"""The formats by name."""

from __future__ import annotations

import difflib

from pipeline.base.errors import ConfigError
from pipeline.exporting import llama_factory, ms_swift, pds, rlaif_v, trl
from pipeline.exporting.export_format import ExportFormat

FORMATS: dict[str, ExportFormat] = {
    module.FORMAT.name: module.FORMAT for module in (llama_factory, ms_swift, trl, rlaif_v, pds)
}


def find(name: str) -> ExportFormat:
    """The format of that name; case, ``-`` and ``_`` do not matter.

    >>> find("LLaMA-Factory").name
    'llama_factory'

    Raises:
        ConfigError: there is none.
    """
    plain = {key.replace("_", ""): key for key in FORMATS}
    wanted = name.lower().replace("_", "").replace("-", "")
    if wanted in plain:
        return FORMATS[plain[wanted]]
    close = difflib.get_close_matches(wanted, plain, n=1)
    hint = f"did you mean {plain[close[0]]}?" if close else f"give one of {', '.join(FORMATS)}"
    raise ConfigError(f"{name!r} is no format to export to", hint)
