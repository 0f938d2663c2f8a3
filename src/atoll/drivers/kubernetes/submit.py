"""Hands attempts to the cluster: decides as whom and on what they run, and makes their objects."""

import asyncio
import base64
import time
from collections.abc import Mapping

from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.core.resources import format_bytes, format_milli
from atoll.drivers.base import Answer, DriverError, DriverSetup, Launch, Refused, Submitted, Unknown
from atoll.drivers.kubernetes.api import ApiError
from atoll.drivers.kubernetes.cluster import Cluster
from atoll.drivers.kubernetes.config import KubernetesConfig
from atoll.drivers.kubernetes.manifests import (
    Kind,
    Order,
    Person,
    config_map_body,
    job_body,
    kind_of,
    namespace_body,
    owner_of,
    scripts_body,
    secret_body,
    service_body,
)
from atoll.drivers.kubernetes.names import filled, namespace_of
from atoll.drivers.kubernetes.nodes import Stock
from atoll.drivers.kubernetes.payload import CannotRun, Payload, make_payload
from atoll.drivers.wrapper import secret_files

_QUOTA = ("exceeded quota", "quota exceeded")
_MOST_SECRETS = 900 << 10
"""Bytes of all secrets of an attempt: the server takes 1 MiB."""


class Submitter:
    """Makes the objects of attempts."""

    def __init__(self, setup: DriverSetup, config: KubernetesConfig, cluster: Cluster) -> None:
        self._setup = setup
        self._config = config
        self._cluster = cluster
        self._ready: set[str] = set()
        self._readying = asyncio.Lock()
        self._silent: tuple[float, str] | None = None
        """When the cluster last gave no answer here, and how that was told."""
        self.stocks: Mapping[str, Stock] | None = None
        """What the cluster had when it was last looked at; None before that."""

    @property
    def serves_others(self) -> bool:
        """Whether jobs of other persons than the owner can run here."""
        return self._setup.shared or self._tells_apart

    @property
    def _tells_apart(self) -> bool:
        config = self._config
        by_account = config.service_account is not None and "{project}" not in config.service_account
        return config.impersonate is not None or bool(config.accounts) or by_account

    async def submit(self, launch: Launch) -> Answer:
        """The cluster's answer to one attempt."""
        try:
            order = self._order(launch)
            payload = await asyncio.to_thread(
                make_payload, launch, self._config, order.person.account, order.native_id
            )  # fmt: skip
            secrets = _secret_values(launch)
            # before anything is made: what is wrong with the job shall leave nothing behind
            job_body(order, payload, self._config, owner_of(order.name, ""))
        except (CannotRun, Invalid) as error:
            return Refused(launch.attempt_id, f"{str(error).rstrip('.')}.")
        except OSError as error:
            return Unknown(launch.attempt_id, f"The attempt's files cannot be read: {error.strerror}.")
        try:
            await self._make(order, payload, secrets)
        except ApiError as error:
            return self._refused(order, error)
        except DriverError as error:
            return Unknown(launch.attempt_id, str(error))
        return Submitted(launch.attempt_id, order.native_id)

    def _refused(self, order: Order, error: ApiError) -> Answer:
        """What an error of the server means for the attempt."""
        attempt_id = order.launch.attempt_id
        if error.passing:
            return Unknown(attempt_id, str(self._cluster.api.sentence(error)))
        full = error.status == 403 and any(word in error.words for word in _QUOTA)
        permanent = not full and error.status != 409
        return Refused(attempt_id, f"The cluster refuses it: {error.words}.", permanent=permanent)

    # -- decisions -----------------------------------------------------------------------------------------------

    def _order(self, launch: Launch) -> Order:
        """What is to be made for an attempt. Raises CannotRun."""
        if not is_attempt_id(launch.attempt_id, self._setup.instance):
            raise CannotRun(f"attempt: {launch.attempt_id!r} is not an attempt of this platform")
        kinds = self._kinds(launch)
        self._check_size(launch, kinds)
        namespace = namespace_of(self._config.namespace, launch.project)
        return Order(launch, self._setup.instance, namespace, self._person(launch), kinds)

    def _person(self, launch: Launch) -> Person:
        """As whom the attempt runs. Raises CannotRun where its person has no account here."""
        config, account = self._config, launch.account
        if account is None and launch.person != self._setup.owner and not self._setup.shared:
            raise CannotRun(
                f"person: {launch.person!r} has no account at this site; map the person to one in the site's file"
            )
        if account is not None and not self._tells_apart:
            raise CannotRun(
                f"account: this site cannot run jobs of {launch.person!r} as {account!r}; its file has no "
                "impersonate, service_account or accounts"
            )
        if account is not None and config.impersonate is None and config.accounts and account not in config.accounts:
            raise CannotRun(f"account: {account!r}, to which {launch.person!r} is mapped, is not among its accounts")
        name = account or self._setup.owner or "atoll"
        service = config.service_account
        if service is not None:
            service = filled(service, account=name, person=launch.person, project=launch.project)
        return Person(name, config.accounts.get(name, config.run_as), service)

    def _kinds(self, launch: Launch) -> list[Kind]:
        """The kinds of hardware that will do, empty for any. Raises CannotRun for unknown ones."""
        kinds: list[Kind] = []
        for name in launch.flavors:
            if self.stocks is not None and name in self.stocks:
                kinds.append(self.stocks[name].kind)
            elif name in self._config.flavors:
                kinds.append(kind_of(self._config.flavors[name], self._config))
        if launch.spec.flavor and not kinds:
            raise CannotRun(f"flavor: this site has no {' or '.join(launch.spec.flavor)}")
        return kinds

    def _check_size(self, launch: Launch, kinds: list[Kind]) -> None:
        """Raises CannotRun for more than any node has, unless the cluster can grow."""
        if self._config.autoscaling or not self.stocks:
            return
        usable = [stock for stock in self.stocks.values() if not kinds or stock.kind in kinds]
        asked = launch.request
        shown = {
            "cpu": (max((each.largest.cpu for each in usable), default=0), format_milli, "CPUs"),
            "memory": (max((each.largest.memory for each in usable), default=0), format_bytes, ""),
            "gpu": (max((each.largest.gpu for each in usable), default=0), format_milli, "GPUs"),
        }
        for name, (most, form, unit) in shown.items():
            if getattr(asked, name) > most:
                raise CannotRun(
                    f"{name}: {form(getattr(asked, name))} {unit} were asked for and the largest node has {form(most)}"
                )
        there = sum(each.nodes for each in usable)
        if launch.nodes > there:
            raise CannotRun(f"nodes: {launch.nodes} were asked for and the site has {there}")

    def _headers(self, order: Order) -> dict[str, str]:
        """As whom the cluster is to take what is made."""
        rule = self._config.impersonate
        if rule is None or order.launch.account is None:
            return {}
        launch = order.launch
        values = {"account": order.person.account, "person": launch.person, "project": launch.project}
        headers = {"Impersonate-User": filled(rule.user, **values)}
        if rule.group is not None:
            headers["Impersonate-Group"] = filled(rule.group, **values)
        return headers

    # -- objects -------------------------------------------------------------------------------------------------

    async def _make(self, order: Order, payload: Payload, secrets: Mapping[str, str]) -> None:
        """Make the attempt's objects, the Job last: it finds all that it needs. Raises ApiError, DriverError."""
        await self._prepare(order.namespace)
        try:
            await self._make_objects(order, payload, secrets)
        except ApiError as error:
            if error.status != 404:
                raise
            self._ready.discard(order.namespace)  # the namespace has been removed since we saw it
            await self._prepare(order.namespace)
            await self._make_objects(order, payload, secrets)

    async def _make_objects(self, order: Order, payload: Payload, secrets: Mapping[str, str]) -> None:
        make, headers = self._cluster.make, self._headers(order)
        base = f"/api/v1/namespaces/{order.namespace}"
        first = await make(f"{base}/configmaps", config_map_body(order, payload, 0, None), headers)
        uid = first.metadata.uid if first is not None else await self._cluster.uid(
            f"{base}/configmaps/{order.name}", headers
        )  # fmt: skip
        owner = owner_of(order.name, uid)
        try:
            for number in range(1, len(payload.maps)):
                await make(f"{base}/configmaps", config_map_body(order, payload, number, owner), headers)
            if secrets:
                await make(f"{base}/secrets", secret_body(order, secrets, owner), headers)
            if order.launch.nodes > 1:
                await make(f"{base}/services", service_body(order, owner), headers)
            jobs = f"/apis/batch/v1/namespaces/{order.namespace}/jobs"
            await make(jobs, job_body(order, payload, self._config, owner), headers)
        except ApiError as error:
            if first is not None and not error.passing:
                await self._cluster.remove(f"{base}/configmaps/{order.name}", pods_too=True)
            raise

    async def _prepare(self, namespace: str) -> None:
        """Have the namespace with the scripts that its attempts share. Raises ApiError, DriverError."""
        if namespace in self._ready:
            return
        begun = time.monotonic()
        async with self._readying:
            if namespace in self._ready:
                return
            if self._silent is not None and self._silent[0] >= begun:
                raise DriverError(self._silent[1])  # whoever was before us has waited for all of us
            try:
                await self._make_ready(namespace)
            except DriverError as error:
                self._silent = (time.monotonic(), str(error))
                raise
            self._ready.add(namespace)

    async def _make_ready(self, namespace: str) -> None:
        path, body = f"/api/v1/namespaces/{namespace}/configmaps", scripts_body()
        try:
            await self._cluster.make(path, body, {})
        except ApiError as error:
            if error.status != 404 or not self._config.make_namespaces:
                raise
            await self._cluster.make("/api/v1/namespaces", namespace_body(namespace, self._setup.instance), {})
            await self._cluster.make(path, body, {})


def _secret_values(launch: Launch) -> dict[str, str]:
    """The attempt's secrets as the wrapper wants them, in base64. Raises CannotRun, Invalid."""
    files = secret_files(launch)
    if sum(map(len, files.values())) > _MOST_SECRETS:
        raise CannotRun("secrets: together they are larger than the cluster stores in one object (900 KiB)")
    return {name: base64.b64encode(content).decode() for name, content in files.items()}
