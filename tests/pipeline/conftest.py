from __future__ import annotations

import os
import sys
from pathlib import Path

# Ray's workers unpickle the stages of `stage_kit` by name, so it must be importable here and, by the environment that
# they inherit, there.
_HERE = str(Path(__file__).parent)
sys.path.insert(0, _HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))
