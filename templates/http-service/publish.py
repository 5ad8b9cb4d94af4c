"""Gives the program to the daemon of this machine, under its name. Runs outside of the engine: python publish.py"""

import asyncio
from pathlib import Path

from pie_client import PieClient


async def publish() -> None:
    async with PieClient() as client:
        program = await client.upload(Path(__file__).parent)
    print(f"published {program.name}@{program.version}")


if __name__ == "__main__":
    asyncio.run(publish())
