"""The command line's verbs for jobs. What needs the client or a specification is imported when a command runs."""

import typer

from atoll.jobs.commands import acting, looking, submitting, watching

app = typer.Typer()

looking.register(app)
submitting.register(app)
watching.register(app)
acting.register(app)

__all__ = ["app"]
