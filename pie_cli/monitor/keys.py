"""The keys of the monitor: help, footer and command palette are made of these."""

from __future__ import annotations

from textual.binding import Binding

PAGES = ("programs", "batch", "market", "throughput", "parts", "diagnosis")
"""In the order of the keys 1 to 6."""
PAGE_NAMES = {
    "programs": "Programs",
    "batch": "Batches over time",
    "market": "The market: price, rent, who paid, who was moved out",
    "throughput": "Throughput, latencies and errors",
    "parts": "Hosts and cores",
    "diagnosis": "Diagnosis and log",
}


def _binding(key: str, action: str, name: str, about: str = "", *, show: bool = False, shown_key: str = "") -> Binding:
    ident = f"monitor.{action.partition('(')[0]}.{key.partition(',')[0]}"
    return Binding(
        key, f"app.{action}", name, show=show, tooltip=about or name, id=ident, key_display=shown_key or None
    )


BINDINGS = [
    _binding("q", "leave", "Leave", "Leave the monitor; the engine goes on", show=True),
    _binding("question_mark,f1", "help", "Help", "These keys, the marks and the columns", show=True, shown_key="?"),
    *(
        _binding(str(number), f"page('{page}')", page.capitalize(), PAGE_NAMES[page])
        for number, page in enumerate(PAGES, 1)
    ),
    _binding("tab", "next_page(1)", "Next page", "The next page"),
    _binding("shift+tab", "next_page(-1)", "Page before", "The page before"),
    _binding("slash", "search", "Search", "Go to the programs that have a word", show=True, shown_key="/"),
    _binding("n", "find(1)", "Next", "The next one that the search finds"),
    _binding("N", "find(-1)", "Before", "The one before that the search finds", shown_key="N"),
    _binding("f", "filter", "Filter", "Show only programs that have all of some words", show=True),
    _binding("o", "sort(1)", "Order", "Sort by the next column; a click on its name does it as well", show=True),
    _binding("O", "sort(-1)", "Order back", "Sort by the column before", shown_key="O"),
    _binding("i", "invert", "Invert", "Sort the other way round"),
    _binding("g", "group", "Group", "Group the programs by owner"),
    _binding("c", "columns", "Columns", "Choose the columns"),
    _binding("z", "zoom", "Zoom", "Histories of 2 minutes, 20 minutes, an hour"),
    _binding("m", "model", "Model", "Batch and market of the next model"),
    _binding("space", "freeze", "Freeze", "Hold the picture, and go on with what has come", show=True),
    _binding("k", "kill", "Kill", "End the chosen program", show=True),
    _binding("p", "pause", "Pause", "Pause the chosen program"),
    _binding("r", "resume", "Resume", "Let it go on"),
    _binding("b", "bid", "Bid", "Bid for it: credits for a page and a step"),
    _binding("e", "endow", "Endow", "Give it credits"),
    _binding("l", "log", "Log", "What the chosen program said", show=True),
    _binding("s", "picture", "SVG", "Save the picture as an SVG file"),
    _binding("j", "json", "JSON", "Save the snapshot as a JSON file"),
    _binding("t", "theme", "Theme", "Dark or light"),
    _binding("escape", "clear", "Clear", "End search and filter"),
    Binding("ctrl+c", "app.leave", "Leave", show=False, priority=True, id="monitor.interrupt", system=True),
]
