"""The `pie` command as a process: Ctrl-C is quiet from here on, also while the rest is still being imported."""

import os
import signal

INTERRUPTED = 130

# There is nothing to clean up yet; `run_async` takes over once there is.
signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))

from pie_cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
