"""HTTP without a client of ours."""

from __future__ import annotations

import asyncio


class RawHttp:
    """Requests as anybody could send them."""

    def __init__(self, engine):
        self.path = str(engine.home / "run" / "api.sock")

    async def __call__(self, method, path, body=b"", **headers):
        reader, writer = await asyncio.open_unix_connection(self.path)
        lines = [f"{method} {path} HTTP/1.1", "Host: pie", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        return int(head.split()[1]), fields, text.decode()
