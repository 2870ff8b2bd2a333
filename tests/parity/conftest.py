"""Imported helpers of this folder are plain modules; put the folder on the path for them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
