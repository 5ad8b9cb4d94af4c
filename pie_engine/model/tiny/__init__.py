"""pie-tiny: the very small language model that ships with Pie, and the code that made it."""

from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
