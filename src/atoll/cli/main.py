"""`atoll`: finds the command, runs it, and tells in one sentence what went wrong."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from atoll.cli.group import CommandGroup
from atoll.core.errors import AtollError, Internal
from atoll.faces.terminal.exits import INTERRUPTED, READER_GONE, USAGE
from atoll.faces.terminal.output import printable

app = typer.Typer(
    name="atoll",
    cls=CommandGroup,
    help="Jobs on all the computing of an institution, through one queue.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        import atoll

        sys.stdout.write(f"atoll {atoll.__version__}\n")
        raise typer.Exit


@app.callback()
def _atoll(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Jobs on all the computing of an institution, through one queue."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # who read our output has gone; nobody is left to be told
        _drop_output()
        code = READER_GONE
    except OSError as error:
        _drop_output()
        _tell(f"The output cannot be written: {error.strerror or error}.")
        code = Internal.exit_code
    except KeyboardInterrupt:
        _tell("interrupted")
        code = INTERRUPTED
    sys.exit(code)


def _drop_output() -> None:
    """Let what is still to be written go nowhere, so that Python's own flush at the end has nothing to complain of."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(words: list[str]) -> int:
    """Run a command. Returns its exit code; BrokenPipeError and KeyboardInterrupt are the caller's."""
    try:
        answer: Any = typer.main.get_command(app).main(words, prog_name="atoll", standalone_mode=False)
    except typer.Exit as end:
        return end.exit_code
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer makes an exit code of its own of it
            raise end.__context__ from None
        raise
    except typer.Abort:
        return INTERRUPTED
    except typer.TyperException as error:
        return _usage(error)
    except AtollError as error:
        return _told(error)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except OSError as error:
        _tell(f"{error.filename + ': ' if error.filename else ''}{error.strerror or error}.")
        return Internal.exit_code
    except Exception as error:
        if os.environ.get("ATOLL_DEBUG"):
            raise
        _tell(
            f"A fault of Atoll itself ({type(error).__name__}: {error}); please report it. ATOLL_DEBUG=1 shows where."
        )
        return Internal.exit_code
    return answer if isinstance(answer, int) else 0


def _usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(error.message + "\n")
        return USAGE
    message = error.format_message().removeprefix("Invalid value: ")
    if option := getattr(error, "option_name", None):
        near = list(getattr(error, "possibilities", None) or ())
        message = f"There is no option {option}." + (f" Did you mean {near[0]}?" if near else "")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "atoll"
    _tell(f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'} See: {path} --help")
    return USAGE


def _told(error: AtollError) -> int:
    sentence = error.sentence
    if error.field and error.field != "id" and error.field not in sentence:
        sentence = f"{error.field}: {sentence}"
    more = getattr(error, "errors", ())[1:]
    _tell(sentence)
    for field, detail in more:
        if detail not in sentence:
            _tell(f"  also {field + ': ' if field else ''}{detail}")
    return error.exit_code


def _tell(sentence: str) -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # the error still has its own way out
    sys.stderr.write(f"atoll: {printable(' '.join(sentence.split()))}\n")
    sys.stderr.flush()
