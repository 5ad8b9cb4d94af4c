"""`python -m pie_engine.gateway`: a child of the daemon."""

from __future__ import annotations

from pie_engine.ipc.child import be_born


def main() -> None:
    child = be_born()
    # After birth, so that the daemon knows of this process while the rest is imported.
    child.progress("starting the gateway")
    import uvloop

    from pie_engine.gateway.server import serve

    uvloop.run(serve(child))
    child.close()


main()
