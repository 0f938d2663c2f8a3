"""Starts one attempt: between fork and exec. Nothing here may raise into the supervisor's loop.

The supervisor ignores no signal and keeps the usual umask, so that nothing of that is to be undone in the child:
handlers end with exec by themselves.
"""

import fcntl
import os
import resource
import termios
from typing import NoReturn

from atoll.drivers.process.supervisor.attempt import Attempt
from atoll.drivers.process.supervisor.cgroups import Groups
from atoll.drivers.process.supervisor.mounts import enter, mount_volumes
from atoll.drivers.process.supervisor.processes import become_reaper, end_with_parent, environment_of

CLAIMED_BEFORE = 117
"""Exit status of a child that found its attempt claimed."""
NOT_STARTED = 118
"""Exit status of a child that could not start its attempt; it wrote the reason to the pipe."""
NO_RECORD = 125
"""Exit status of a wrapper that could not write its start; its command did not run."""
_SHELL = "/bin/sh"


class Starter:
    """Forks the wrapper of an attempt; the same settings for all attempts of the site."""

    def __init__(self, folder: str, groups: Groups | None, mounts: str = "", state: str = "") -> None:
        self.wrapper = f"{folder}/wrapper.sh"
        self.attempts = f"{folder}/attempts"
        self.checkpoints = f"{folder}/checkpoints"
        self.groups = groups
        self._mounts_as_root = mounts == "root"
        self._state = state
        self.file_limit: tuple[int, int] | None = None
        """What attempts may open, where the supervisor itself has raised its own limit."""
        self._own = os.getuid()
        self._complaints, self._complain = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._reasons: dict[str, str] = {}

    def folder_of(self, attempt: Attempt) -> str:
        """The attempt's own folder."""
        return f"{self.attempts}/{attempt.id}"

    def is_wrapper(self, attempt: Attempt, words: list[str]) -> bool:
        """Whether `words` are the command line of the attempt's wrapper."""
        return words[1:3] == [self.wrapper, self.folder_of(attempt)]

    def start(self, attempt: Attempt, devices: bool) -> int:
        """Fork the wrapper and return its process id. Raises OSError where the machine has no room for a process."""
        environment = {}
        if devices:
            # empty: a job that asked for none sees none
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index, _ in attempt.gpus)
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        pid = os.fork()
        if pid == 0:
            self._become(attempt, environment)
        return pid

    def _become(self, attempt: Attempt, environment: dict[str, str]) -> NoReturn:
        """In the child: turn into the wrapper."""
        status = NOT_STARTED
        try:
            # few words: each touches pages that the fork shares, and the copies cost more than the calls
            os.setsid()
            become_reaper()
            if self.file_limit is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self.file_limit)
            if attempt.group is not None and self.groups is not None:
                self.groups.enter(attempt.group)
            self._make_checkpoint(attempt)
            if attempt.request.get("volumes"):
                mount_volumes(attempt.request["volumes"], self._mounts_as_root, self._state)
            if attempt.request["uid"] != self._own:
                self._become_account(attempt)
            folder = self.folder_of(attempt)
            os.mkdir(f"{folder}/claim")  # noqa: PTH102  # the wrapper's claim; made here it costs no process
            os.execve(_SHELL, ["sh", self.wrapper, folder, attempt.id, "claimed"], environment)  # noqa: S606
        except FileExistsError:
            status = CLAIMED_BEFORE
        except BaseException as error:  # noqa: BLE001, RUF100  # nothing may get back into the loop of the parent
            os.write(self._complain, f"{attempt.id}\0{error}\0\n".encode()[:4096])
        finally:
            os._exit(status)

    def execute(self, attempt: Attempt, beside: int, words: list[str], descriptors: list[int]) -> int:
        """Start a command in the place of the process `beside` of an attempt; returns its process id. Raises OSError.

        `descriptors` are its input and output, or its terminal.
        """
        environment = environment_of(beside)
        pid = os.fork()
        if pid == 0:
            self._become_command(attempt, beside, words, descriptors, environment)
        return pid

    def _become_command(
        self, attempt: Attempt, beside: int, words: list[str], descriptors: list[int], environment: dict[bytes, bytes]
    ) -> NoReturn:
        """In the child: turn into the command."""
        status = 126
        try:
            os.setsid()
            if attempt.request["uid"] != self._own:
                for descriptor in descriptors:
                    os.fchown(descriptor, attempt.request["uid"], -1)  # so that /dev/stdout and /dev/tty can be opened
            if len(descriptors) == 1:
                fcntl.ioctl(descriptors[0], termios.TIOCSCTTY, 0)
            for target, source in enumerate((descriptors[0], descriptors[-1], descriptors[-1])):
                os.dup2(source, target)
            if self.file_limit is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self.file_limit)
            if attempt.group is not None and self.groups is not None:
                self.groups.enter(attempt.group)
            if attempt.request.get("volumes"):
                enter(beside, self._mounts_as_root)
            if attempt.request["uid"] != self._own:
                self._become_account(attempt)
            end_with_parent()
            os.chdir(f"/proc/{beside}/cwd")
            os.execvpe(words[0], words, environment)  # noqa: S606
        except FileNotFoundError as error:
            status = 127
            os.write(2, f"atoll: {words[0]}: {error.strerror}\n".encode("utf-8", "replace"))
        except BaseException as error:  # noqa: BLE001, RUF100  # nothing may get back into the loop of the parent
            os.write(2, f"atoll: {words[0]}: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(status)

    def checkpoint_of(self, attempt: Attempt) -> str | None:
        """The folder that the attempt shares with the others of its key."""
        key = attempt.request.get("checkpoint")
        return f"{self.checkpoints}/{key}" if key else None

    def _make_checkpoint(self, attempt: Attempt) -> None:
        """Make the checkpoint folder where it is missing.

        Here and not earlier: an empty one goes with the last attempt that is known to share it.
        """
        path = self.checkpoint_of(attempt)
        if path is None or os.path.lexists(path):  # noqa: PTH112, RUF100
            return
        # made under another name, so that it is the account's from its first moment on; no key begins with a dot
        fresh = f"{self.checkpoints}/.{attempt.id}"
        if not os.path.isdir(fresh):  # noqa: PTH112
            os.mkdir(fresh, 0o700)  # noqa: PTH102
        os.lchown(fresh, attempt.request["uid"], attempt.request["gid"])
        try:
            os.rename(fresh, path)  # noqa: PTH104
        except OSError:
            os.rmdir(fresh)  # noqa: PTH106
            if not os.path.isdir(path):  # noqa: PTH112  # else another attempt of the key was faster
                raise

    def _become_account(self, attempt: Attempt) -> None:
        request = attempt.request
        os.setgroups(request["groups"])
        os.setresgid(request["gid"], request["gid"], request["gid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])

    def reason(self, attempt: Attempt) -> str:
        """Why an attempt could not be started; told once."""
        try:
            text = os.read(self._complaints, 1 << 16).decode("utf-8", "replace")
        except BlockingIOError:
            text = ""
        for line in text.split("\0\n"):
            name, _, reason = line.partition("\0")
            self._reasons[name] = reason
        return self._reasons.pop(attempt.id, "no reason was given")
