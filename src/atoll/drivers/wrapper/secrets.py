"""How secrets reach a job that starts through the wrapper: as files of one closed folder, which goes with the job.

A driver lays what `secret_files` says into a folder that only the attempt's account can enter, and names that folder
in `Place.secrets`. The wrapper reads the variables from it and removes them, links the files into the working
directory, and removes the whole folder before it writes the end. Where the wrapper is killed the driver removes it.
"""

import re

from atoll.core.errors import Invalid
from atoll.drivers.base import Launch

ENV = "env"
"""Name of the file with the variables, in the folder of the secrets."""

# Variables that some shell treats as its own: setting them would change, or end, the wrapper's shell.
SHELLS_OWN = re.compile(
    r"atoll_.*|BASH.*|KSH_.*|ZSH_.*|IFS|PPID|UID|EUID|GROUPS|SHELLOPTS|OPTIND|OPTARG|OPTERR|LINENO|RANDOM|SRANDOM"
    r"|SECONDS|PS1|PS2|PS4|PWD|OLDPWD|_|DIRSTACK|FUNCNAME|HISTCMD|EPOCH.*|ENV|POSIXLY_CORRECT|PIPESTATUS|COMP_.*"
)


def quote(text: str) -> str:
    """`text` as one word of a POSIX shell, whatever is in it except NUL."""
    return "'" + text.replace("'", "'\\''") + "'"


def secret_files(launch: Launch) -> dict[str, bytes]:
    """Content of the folder of the attempt's secrets, by plain file name; empty where it has none.

    Raises Invalid for a secret that has no value, or one that no variable can hold.
    """
    if not launch.spec.secrets:
        return {}
    files: dict[str, bytes] = {}
    exports: list[bytes] = []
    for number, secret in enumerate(launch.spec.secrets):
        value = launch.secrets.get(secret.name)
        if value is None:
            raise _invalid(f"the secret {secret.name!r} has no value")
        if secret.env is not None:
            if b"\0" in value:
                raise _invalid(f"the secret {secret.name!r} holds a NUL character, which no variable can; use a file")
            if SHELLS_OWN.fullmatch(secret.env):
                raise _invalid(f"the variable {secret.env!r} is a shell's own; choose another name")
            quoted = b"'" + value.replace(b"'", b"'\\''") + b"'"
            exports.append(b"export %s=%s\n" % (secret.env.encode(), quoted))
        if secret.file is not None:
            files[str(number)] = value
    files[ENV] = b"".join(exports)
    return files


def secret_lines(launch: Launch, folder: str, seen: str | None = None) -> list[str]:
    """What the file `launch` says of the secrets in `folder`: where they are, and how their files are found.

    `seen` is that folder's path as the command sees it, where that is another one.
    """
    links, removals = [], []
    for number, secret in enumerate(launch.spec.secrets):
        if secret.file is None:
            continue
        path, kept = quote(f"./{secret.file}"), f'"$atoll_secrets/{number}"'
        ours = f"{path} -ef {kept}"
        if seen is not None:  # a link that leads nowhere out here
            kept = quote(f"{seen}/{number}")
            ours = f'"$(PATH=/usr/bin:/bin readlink -- {path})" = {kept}'
        parent = quote(f"./{secret.file}".rpartition("/")[0])
        links.append(
            f"    PATH=/usr/bin:/bin mkdir -p -- {parent} && PATH=/usr/bin:/bin ln -sf -- {kept} {path} || return"
        )
        removals.append(f"    [ ! {ours} ] || PATH=/usr/bin:/bin rm -f -- {path}")
    return [
        f"atoll_secrets={quote(folder)}",
        "atoll_link_secrets() {", "    :", *links, "}",
        "atoll_unlink_secrets() {", "    :", *removals, "}",
    ]  # fmt: skip


def _invalid(sentence: str) -> Invalid:
    return Invalid("bad_secret", f"secrets: {sentence}.", field="secrets")
