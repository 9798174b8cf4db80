"""A whole move to a key-value store, with traffic that never stops, judged by an oracle that shares no code with it."""

import sys

from lab.config import ROOT

if str(ROOT / "plugins") not in sys.path:  # pytest and Airflow have it, `python -m lab` has not
    sys.path.insert(0, str(ROOT / "plugins"))
