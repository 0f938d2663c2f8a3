"""What sbatch's and scontrol's error messages mean for whoever must decide whether to try again."""

import re

_UNREACHABLE = re.compile(
    r"unable to contact slurm controller|connection refused|connect failure|no route to host|"
    r"slurm_load_\w+ error|unable to establish controller machine|could not load host|name resolution",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"socket timed out|timed out|zero bytes were transmitted|communication.*(failure|shutdown)|send/recv|"
    r"unexpected message received|resource temporarily unavailable|protocol authentication error.*expired",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"limit|exceed|quota|temporarily|busy|try again|unavailable|draining|in use|not enough|no space left|"
    r"requested reservation is (not|in)|"
    r"partition.*(inactive|down|drained|not avail)",
    re.IGNORECASE,
)
_POLICY = re.compile(r"accounting/qos policy", re.IGNORECASE)
"""One of the limits of an account, whichever it is: others' jobs end, and limits are raised."""
_NEVER = re.compile(
    r"more processors requested than permitted|requested node configuration is not available|"
    r"invalid (partition|account|qos|feature|job array|generic resource|wckey)|invalid .* specification|"
    r"time limit|requested time limit is invalid|node count specification invalid|memory required by task is not|"
    r"user not in group|access/permission denied|unrecognized option|invalid option|unknown",
    re.IGNORECASE,
)
_NOISE = re.compile(r"^(sbatch|scancel|squeue|scontrol|srun|sacct|sinfo): (error: )?(fatal: )?")


def plain(text: str) -> str:
    """An error message in one line, without the program's name, without a full stop."""
    lines = [_NOISE.sub("", line.strip()) for line in re.split(r"[\t\n]", text) if line.strip()]
    joined = "; ".join(dict.fromkeys(line.rstrip(".") for line in lines if line))
    printable = "".join(letter if letter.isprintable() else " " for letter in joined)
    return printable[:500] or "it said nothing"


def unreachable(text: str) -> bool:
    """Whether the controller was not there at all: nothing was asked of it."""
    return _UNREACHABLE.search(text) is not None and not may_have_landed(text)


def may_have_landed(text: str) -> bool:
    """Whether the controller may have got the question though it did not answer."""
    return _UNKNOWN.search(text) is not None


def permanent(text: str) -> bool:
    """Whether the same submission would be refused again."""
    if _POLICY.search(text):
        return False
    return _NEVER.search(text) is not None or _PASSING.search(text) is None
