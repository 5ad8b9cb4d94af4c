"""How should one host run many programs? `python benches/host_experiment.py --json-out results.json`

The experiment itself is the folder of the same name; this launcher gives it the usual spelling.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_suffix("")), run_name="__main__")
