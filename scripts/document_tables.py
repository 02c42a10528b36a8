"""Generated parts of the documents: `python -m scripts.document_tables` writes them, a test compares them.

A part is between `<!-- NAME -->` and `<!-- /NAME -->`, each on a line of its own; the rest is written by hand.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from shmchannel.daemonkit.exits import exit_codes_table
from shmchannel.daemonkit.settings import environment_prefix, settings_table
from shmchannel.stats_pages import Metric
from simplecached.daemon.config import CacheConfig
from simplecached.telemetry import metrics as cache_metrics
from webproxy.admin.exposition import ADDED
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.origin_config import OriginConfig
from webproxy.telemetry import metrics as proxy_metrics

OPERATIONS = os.path.join("docs", "operations.md")
_PARTS: Mapping[str, Callable[[], str]] = {
    "settings: simplecached": lambda: settings_table(CacheConfig, environment_prefix("simplecached")),
    "settings: webproxy": lambda: settings_table(ProxyConfig, environment_prefix("webproxy")),
    "settings: webproxy origin": lambda: settings_table(OriginConfig, None),
    "exit codes": exit_codes_table,
    "metrics: webproxy": lambda: metrics_table(proxy_metrics.SCHEMA.metrics),
    "metrics: simplecached": lambda: metrics_table(cache_metrics.SCHEMA.metrics),
    "metrics: processes": lambda: metrics_table(ADDED),
}


def metrics_table(metrics: Iterable[Metric]) -> str:
    """A row for each metric: what it says, and what an operator does about it."""
    lines = ["| name | kind | labels | meaning | then do this |", "| --- | --- | --- | --- | --- |"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_code(metric.help)} | {_code(metric.advice)} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """With what is written like a name or a flag marked as such."""
    return re.sub(r"(?<![\w`])([a-z]+(?:_[a-z]+)+|--?[a-z]+|LimitNOFILE|Cache-Control)(?![\w`])", r"`\1`", text)


class PartMissing(Exception):
    """The document has no place for a generated part, or more than one."""


def with_tables(text: str) -> str:
    """The document with every generated part up to date. Raises PartMissing."""
    for name, table in _PARTS.items():
        text = replace_part(text, name, table())
    return text


def replace_part(text: str, name: str, content: str) -> str:
    """The document with `content` between the markers of the part. Raises PartMissing."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
    replaced, count = pattern.subn(lambda match: match[1] + content + match[2], text)
    if count != 1:
        raise PartMissing(f"{count} places for '{name}', expected 1")
    return replaced


def main(argv: Sequence[str] | None = None) -> int:
    """Update the tables. Exit status: 0, or 1 if there is no place for one."""
    parser = argparse.ArgumentParser(prog="document_tables", description=__doc__)
    parser.parse_args(argv)
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), OPERATIONS)
    with open(path, encoding="utf-8") as file:
        before = file.read()
    try:
        after = with_tables(before)
    except PartMissing as error:
        print(f"document_tables: {OPERATIONS}: {error}", file=sys.stderr)
        return 1
    if after != before:
        with open(path, "w", encoding="utf-8") as file:
            file.write(after)
    print(f"{OPERATIONS}: {'written' if after != before else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
