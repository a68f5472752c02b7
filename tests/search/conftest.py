"""Job functions live beside the tests, where workers, who inherit `sys.path`, can import them by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
