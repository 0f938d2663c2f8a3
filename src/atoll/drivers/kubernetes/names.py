"""Names that the cluster takes, made of names that it would not."""

import hashlib
import re

from atoll.core.ids import is_attempt_id

_NOT_DNS = re.compile(r"[^a-z0-9]+")


def dns_label(text: str, most: int = 63) -> str:
    """`text` as a DNS label; what had to be changed gets a few letters that tell it from others that end up alike."""
    plain = _NOT_DNS.sub("-", text.lower()).strip("-")
    if plain == text and len(plain) <= most:
        return plain
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{plain[: most - 7].rstrip('-')}-{mark}".lstrip("-")


def namespace_of(template: str, project: str) -> str:
    """The namespace of a project."""
    return dns_label(template.replace("{project}", project)) if "{" in template else template


def filled(template: str, *, account: str, person: str, project: str) -> str:
    """A text with its placeholders filled in."""
    values = {"{account}": account, "{person}": person, "{project}": project}
    return re.sub(r"\{(?:account|person|project)\}", lambda found: values[found[0]], template)


def job_name(attempt_id: str) -> str:
    """The name of the attempt's Job, and of what belongs to it. Raises KeyError for what is no attempt's id."""
    if not is_attempt_id(attempt_id):
        raise KeyError(attempt_id)
    return f"atoll-{attempt_id}"


def split_native(native_id: str | None, attempt_id: str) -> str | None:
    """The namespace in a native id that is the attempt's; else None."""
    namespace, slash, name = (native_id or "").partition("/")
    valid = slash and re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace)
    return namespace if valid and name == f"atoll-{attempt_id}" else None
