"""The `pie` command. It talks to the engine only through `pie_client` and `pie_engine.protocol`."""
