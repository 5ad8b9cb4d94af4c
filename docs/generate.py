"""Writes the documentation pages that come from the code, or checks that they are up to date (`--check`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from performance import performance_page

from pie_engine import config
from pie_engine.config_fields import settings_of
from pie_engine.gateway.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
HEADINGS = {
    "EngineConfig": "Top level",
    "ModelSection": "`[[models]]`",
    "HostSection": "`[host]`",
    "GatewaySection": "`[gateway]`",
    "SchedulingSection": "`[scheduling]`",
    "UserSection": "`[scheduling.users.NAME]`",
    "TelemetrySection": "`[telemetry]`",
}
INTRO = """# Configuration

From `config.toml` in the user's configuration folder (`PIE_CONFIG` names another file), then `PIE_HOME`, `PIE_CACHE`
and `PIE_LOG_LEVEL`, then what the command line gives. An unknown key is an error that names the nearest known one; a
value that is not allowed is an error that says what is.

```toml
[[models]]
path = "/models/my-llama"
kv_memory_mb = 4096

[host]
num_hosts = 2
```

`pie config init` writes a file that names every setting, `pie config set host.num_hosts 2` changes one, `pie config
show` says what holds and where it comes from, and `pie config check` reads a file as the daemon will. Settings are read
when the daemon starts.
"""


def configuration_page() -> str:
    """docs/configuration.md from the classes of config.py: each field with its default, range and docstring."""
    return INTRO + "".join(_table(heading, getattr(config, name)) for name, heading in HEADINGS.items())


def _table(heading: str, section: type[config.Section]) -> str:
    lines = [f"\n## {heading}", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
    for each in settings_of(section):
        default = f"`{each.default!r}`" if isinstance(each.default, str | int | float) else ""
        lines.append(f"| `{each.key}` | {default} | {each.allowed} | {each.doc} |")
    return "\n".join(lines) + "\n"


METRICS_INTRO = """# Metrics

`GET /metrics` answers Prometheus' text format, or OpenMetrics to who asks for that: what
[`GET /v1/stats`](http.md#the-engine) says as JSON. To scrape it, let the daemon listen on a port (`gateway.listen`,
[deploying.md](deploying.md)):

```yaml
scrape_configs:
  - job_name: pie
    static_configs:
      - targets: ["127.0.0.1:8765"]
```

[grafana-dashboard.json](grafana-dashboard.json) is a dashboard of these for Grafana: Dashboards → New → Import.
Counters start again when their process does, which `rate()` knows about. Traces are [below](#traces).

| name | kind | labels | meaning |
|---|---|---|---|
"""
TRACES = """
## Traces

With `otlp_endpoint` under `[telemetry]` in the [configuration](configuration.md), each process that ends becomes a
trace for a collector of OpenTelemetry, as OTLP over HTTP with JSON (`POST /v1/traces` below the endpoint), within a
second. A collector that is slow or away loses traces, which the log says once; nothing else notices. Without the
setting nothing is gathered.

```toml
[telemetry]
otlp_endpoint = "http://127.0.0.1:4318"
```

The service is `pie`. The first span of a trace has the name of the program, and lasts from launch to end; its status is
an error where the process failed. Its attributes are `pie.pid`, `pie.program`, `pie.program.version`, `pie.user`,
`pie.host`, `pie.outcome` (`return` or the code of the error), `gen_ai.usage.input_tokens`, `gen_ai.usage.output_tokens`
and `pie.usage.cached_tokens`. Its children are

- `queue`, from launch to start;
- `generate MODEL` for each generation, with an event `first token`, and the attributes `gen_ai.operation.name`,
  `gen_ai.request.model`, `gen_ai.usage.input_tokens`, `gen_ai.usage.output_tokens`, `pie.usage.cached_tokens` and
  `pie.finish` ([the reasons](sdk.md#generate)). Of one process at most 1,000 are told; `pie.generations_left_out` of
  the first span counts the rest.
"""


def metrics_page() -> str:
    """docs/metrics.md from the table of the metrics."""
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.help} |\n"
        for each in METRICS
    ]
    return METRICS_INTRO + "".join(rows) + TRACES


def _module_output(module: str, *args: str) -> str:
    command = [sys.executable, "-m", module, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def pages() -> dict[Path, str]:
    """Every generated page with what it should hold."""
    return {
        ROOT / "docs" / "configuration.md": configuration_page(),
        ROOT / "docs" / "cli.md": _module_output("pie_cli.docs"),
        ROOT / "docs" / "errors.md": _module_output("pie_cli.docs", "errors"),
        ROOT / "docs" / "metrics.md": metrics_page(),
        ROOT / "docs" / "performance.md": performance_page(),
    }


def main() -> int:
    is_check = "--check" in sys.argv
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    if is_check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"out of date: {names}\nhint: make docs", file=sys.stderr)
        return 1
    for path in stale:
        path.write_text(pages()[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
