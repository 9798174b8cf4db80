"""The function's package is found as Lambda finds it: its parent folder is on the path, and nothing else of this repository is needed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "include" / "lambda"))
