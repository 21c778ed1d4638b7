"""What every benchmark says in the end: its result as JSON, on the screen and in the file that ``--json`` names."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MACHINE: Mapping[str, Any] = {"cpus": os.cpu_count(), "machine": platform.machine()}


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="OUT", help="write the result into this file as well")
    return made


def tell(result: Mapping[str, Any], path: Path | None) -> None:
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n")
