"""How every attempt starts: a small POSIX shell script, what is rendered for it, and how to read what it wrote.

Shared by the drivers whose engines start a command in a folder; nothing here knows any engine.
"""

from atoll.drivers.wrapper.launch import (
    FILES,
    LAUNCH,
    SCRIPT,
    STDERR,
    STDOUT,
    WRAPPER,
    Place,
    environment_of,
    quote,
    render_launch,
)
from atoll.drivers.wrapper.patterns import expand_pattern, pattern_values
from atoll.drivers.wrapper.record import Record, parse_end, parse_start, read_record

__all__ = [
    "FILES", "LAUNCH", "SCRIPT", "STDERR", "STDOUT", "WRAPPER", "Place", "Record", "environment_of", "expand_pattern",
    "parse_end", "parse_start", "pattern_values", "quote", "read_record", "render_launch",
]  # fmt: skip
