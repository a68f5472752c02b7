"""Job functions are in the folder of the tests: workers inherit `sys.path` and can import them by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
