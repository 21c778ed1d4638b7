"""The licences that a dataset's card may name: the ids of the Hub's list, and what the common ones are called."""

from __future__ import annotations

import difflib

#: https://huggingface.co/docs/hub/repositories-licenses
_LISTED = """afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc
    lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
    odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl
    zlib"""
IDS = frozenset(_LISTED.split())
#: What it is called, and where its text is.
_KNOWN = {
    "apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "bsd-3-clause": ("BSD 3-Clause License", "https://opensource.org/license/bsd-3-clause"),
    "cc0-1.0": ("Creative Commons Zero 1.0", "https://creativecommons.org/publicdomain/zero/1.0/legalcode"),
    "cdla-permissive-2.0": ("Community Data License Agreement, Permissive 2.0", "https://cdla.dev/permissive-2-0/"),
    "cdla-sharing-1.0": ("Community Data License Agreement, Sharing 1.0", "https://cdla.dev/sharing-1-0/"),
    "mit": ("MIT License", "https://opensource.org/license/mit"),
    "odbl": ("Open Database License", "https://opendatacommons.org/licenses/odbl/1-0/"),
    "odc-by": ("Open Data Commons Attribution License", "https://opendatacommons.org/licenses/by/1-0/"),
    "pddl": ("Public Domain Dedication and License", "https://opendatacommons.org/licenses/pddl/1-0/"),
} | {
    f"cc-{terms}-4.0": (f"Creative Commons {terms.upper()} 4.0", f"https://creativecommons.org/licenses/{terms}/4.0/")
    for terms in ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")
}
_LIST = "https://huggingface.co/docs/hub/repositories-licenses"


def licence_id(name: str) -> str:
    """The Hub's spelling.

    >>> licence_id("CC-BY-4.0")
    'cc-by-4.0'

    Raises:
        ValueError: the list has no such licence; names the nearest.
    """
    plain = name.strip().lower()
    if plain not in IDS:
        close = difflib.get_close_matches(plain, sorted(IDS), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? Or" if close else "Or"
        raise ValueError(
            f"{name!r} is no licence of the Hub's list ({_LIST}); {hint} give license=other with license_name"
        )
    return plain


def licence_text(license: str, license_name: str | None = None, license_link: str | None = None) -> str:
    """The file LICENSE of a dataset, which names its licence and says where the text is. The arguments are those that
    the Hub reads in a card.

    >>> print(licence_text("mit"), end="")
    This dataset is under the MIT License (mit).
    https://opensource.org/license/mit
    """
    if license == "other":
        return f"This dataset is under the licence {license_name}.\n" + (f"{license_link}\n" if license_link else "")
    title, place = _KNOWN.get(license, ("licence that the Hub's list calls so", _LIST))
    return f"This dataset is under the {title} ({license}).\n{place}\n"
