"""The command group that loads a room's commands when one of them is used, or described."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Jobs": {
        "submit": "Submit jobs: a YAML file, a script, or a command after --.",
        "explain": "Say whether a job could run, where, and when it would start.",
        "run": "Submit a job, follow its output and end with its exit code.",
        "ps": "List jobs.",
        "show": "Show all about a job.",
        "why": "Say why a job waits, or why it ended as it did.",
        "logs": "Print what jobs wrote.",
        "attach": "Follow a job's output from now on; Ctrl-C detaches.",
        "wait": "Wait until jobs have ended.",
        "fetch": "Bring the files that a job kept into a folder here.",
        "cancel": "Cancel jobs, or some tasks of an array.",
        "hold": "Keep waiting jobs from starting.",
        "release": "Let held jobs go on.",
        "requeue": "Run jobs again from the start.",
        "signal": "Send a signal to the processes of running jobs.",
        "set": "Change what may still be changed of a job.",
    },
    "Sites and people": {
        "site": "The places that run jobs: ls, show.",
        "login": "Log in to a platform on this machine.",
        "logout": "Make this machine's token useless and forget it.",
        "token": "Tokens, for programs and other machines: create, ls, revoke.",
        "user": "Who may log in: add, ls, link, role, disable, enable.",
    },
    "Projects and quotas": {
        "project": "The project tree: list, show, plan, apply, export, add-person, remove-person.",
        "quota": "Show what projects may use, use, borrow and lend.",
        "flavor": "Show the kinds of hardware over all sites.",
        "reservation": "Room that is kept for an event or for maintenance: list, add, remove.",
        "queue": "Show how many jobs wait and run, and who borrows from whom.",
    },
    "The platform": {
        "up": "Start a platform on this machine.",
        "doctor": "Say what this machine can and cannot do.",
        "version": "Print the versions of Atoll, here and of the platform.",
        "demo": "Start a platform with a department's busy day on it, to look at.",
        "simulate": "Replay a trace on a cluster that is only described, without a platform.",
    },
}
"""Every command with its line in the help."""

_HOMES = {
    "Jobs": "atoll.jobs.commands", "Projects and quotas": "atoll.queue.commands", "The platform": "atoll.cli.platform",
}  # fmt: skip
_OWN_HOMES = {
    "simulate": "atoll.cli.simulate", "demo": "atoll.cli.demo",
    "login": "atoll.people.commands.login", "logout": "atoll.people.commands.login",
}  # fmt: skip
_NOUNS = {
    "site": "atoll.sites.commands", "token": "atoll.people.commands.tokens", "user": "atoll.people.commands.users",
    "project": "atoll.queue.commands.projects",
    "reservation": "atoll.queue.commands.reservations",
}  # fmt: skip


class CommandGroup(TyperGroup):
    """All commands by name; their modules are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, with all that belongs to it; None where there is none."""
        section = next((section for section, commands in SECTIONS.items() if cmd_name in commands), None)
        if section is None:
            return None
        if cmd_name in _NOUNS:
            return _group(_NOUNS[cmd_name])
        return _group(_OWN_HOMES.get(cmd_name) or _HOMES[section]).get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words begin with. Raises a usage error with a suggestion."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise typer.BadParameter(f"There is no command {name!r}.{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by section, without importing them."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))


def _group(module: str) -> Any:
    app: typer.Typer = import_module(module).app
    app.rich_markup_mode = None
    app.pretty_exceptions_enable = False
    app._add_completion = False
    return typer.main.get_group(app)
