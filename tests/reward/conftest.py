from __future__ import annotations

import sys
from pathlib import Path

# The hand-made texts are shared by test modules of several folders.
sys.path.insert(0, str(Path(__file__).parent))
