"""What a site file says of a login node: the fields that every driver with `transport: ssh` takes into its config."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from atoll.core.errors import Invalid
from atoll.core.spec import Document

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_SYMBOL = "{account}"


def is_account_name(text: str) -> bool:
    """Whether `text` is a Unix account's name as every system takes it: nothing in it means anything to a shell."""
    return _ACCOUNT.fullmatch(text) is not None


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return path


def _key_template(text: str) -> str:
    if _SYMBOL not in text:
        raise ValueError(f"{text!r} must have {_SYMBOL} in it; or write a key for each account, as in {{ann: /path}}")
    return _absolute(text)


def _words(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"the command cannot be split into words: {error}") from None
    return value


def _names_account(words: list[str]) -> list[str]:
    if not any(_SYMBOL in word for word in words):
        raise ValueError(f"{shlex.join(words)!r} must have {_SYMBOL} in it, as in sudo -n -u {_SYMBOL} --")
    return words


AccountName = Annotated[str, Field(pattern=rf"^{_ACCOUNT.pattern}$")]
KeyFile = Annotated[str, AfterValidator(_absolute)]
KeyTemplate = Annotated[str, AfterValidator(_key_template)]
Impersonation = Annotated[list[str], BeforeValidator(_words), Field(min_length=1), AfterValidator(_names_account)]


@dataclass(frozen=True)
class SshConfig:
    """A login node, and who logs in there with which key."""

    host: str
    user: str
    key: str
    """Path of the private key of `user`; a certificate lies beside it as `KEY-cert.pub`."""
    known_hosts: str
    port: int = 22
    keys: Mapping[str, str] | str = field(default_factory=dict)
    """Path of each account's own key, or a path with {account} in it."""
    impersonate: tuple[str, ...] = ()
    """Words before a command by which `user` acts as {account}; empty where it may not."""
    sessions: int = 8
    """Most commands at once on one connection."""
    patience: float = 20.0
    """Seconds to wait for a connection."""

    @property
    def serves_others(self) -> bool:
        """Whether commands can run as other accounts than `user`."""
        return bool(self.keys or self.impersonate)

    def key_of(self, account: str) -> str | None:
        """Path of the account's own key; None where the site file names none."""
        if isinstance(self.keys, str):
            return self.keys.replace(_SYMBOL, account)
        return self.keys.get(account)

    def words_as(self, account: str) -> list[str]:
        """The words that make `user` act as `account`."""
        return [word.replace(_SYMBOL, account) for word in self.impersonate]


class SshFields(Document):
    """Fields of a driver's config for `transport: ssh`; a driver's own config inherits them."""

    host: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}$", description="The login node.")
    ] = None
    port: Annotated[int, Field(ge=1, le=65535, description="Port of its SSH server.")] = 22
    user: Annotated[
        str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.@-]{0,63}$", description="Who logs in for the site itself.")
    ] = None
    key: Annotated[KeyFile | None, Field(description="Private key of `user`, on the control plane.")] = None
    known_hosts: Annotated[
        KeyFile | None, Field(description="File with the login node's host key, in OpenSSH's format.")
    ] = None
    keys: Annotated[
        dict[AccountName, KeyFile] | KeyTemplate | None,
        Field(description="Private key of each account that logs in itself; or one path with {account} in it."),
    ] = None
    impersonate: Annotated[
        Impersonation | None, Field(description="Command by which `user` acts as {account}, which the site permits.")
    ] = None
    sessions: Annotated[
        int, Field(ge=1, le=1000, description="Most commands at once on a connection; sshd's MaxSessions is 10.")
    ] = 8

    def ssh(self) -> SshConfig:
        """The login node that the fields name. Raises Invalid where one that it takes is missing."""
        for name in ("host", "user", "key", "known_hosts"):
            if getattr(self, name) is None:
                sentence = f"config.{name}: This field is required where the transport is ssh."
                raise Invalid("invalid_site", sentence, field=f"config.{name}")
        assert self.host is not None
        assert self.user is not None
        assert self.key is not None
        assert self.known_hosts is not None
        return SshConfig(
            self.host, self.user, self.key, self.known_hosts, self.port, self.keys or {}, tuple(self.impersonate or ()),
            self.sessions,
        )  # fmt: skip
