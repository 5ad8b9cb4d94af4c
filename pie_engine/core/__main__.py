"""`python -m pie_engine.core`, started by the daemon."""

from __future__ import annotations

import sys

from pie_engine.core.process import main

sys.exit(main())
