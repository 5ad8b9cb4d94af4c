"""A real daemon and a real gateway with a host and a core that only speak the protocol."""

from __future__ import annotations

import sys
from pathlib import Path

from pie_engine.daemon import COMMANDS, main

HERE = Path(__file__).parent

if __name__ == "__main__":
    stand_ins = {role: (sys.executable, str(HERE / f"fake_{role}.py")) for role in ("host", "core")}
    sys.exit(main(commands={**COMMANDS, **stand_ins}))
