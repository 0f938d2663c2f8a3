"""How every attempt starts: a small POSIX shell script, what is rendered for it, and how to read what it wrote.

Shared by the drivers whose engines start a command in a folder; nothing here knows any engine.
"""

from atoll.drivers.wrapper.launch import (
    FILES,
    LAUNCH,
    SCRIPT,
    SECRETS,
    STDERR,
    STDOUT,
    WRAPPER,
    Place,
    environment_of,
    output_file,
    render_launch,
)
from atoll.drivers.wrapper.record import Record, parse_end, parse_start, read_record
from atoll.drivers.wrapper.secrets import quote, secret_files

__all__ = [
    "FILES", "LAUNCH", "SCRIPT", "SECRETS", "STDERR", "STDOUT", "WRAPPER", "Place", "Record", "environment_of",
    "output_file", "parse_end", "parse_start", "quote", "read_record", "render_launch", "secret_files",
]  # fmt: skip
