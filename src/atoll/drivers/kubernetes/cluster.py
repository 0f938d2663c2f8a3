"""What the driver asks the cluster and tells it, one method for each: paths, queries and bodies."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import msgspec

from atoll.drivers.base import DriverError
from atoll.drivers.kubernetes.api import MERGE, Api, ApiError
from atoll.drivers.kubernetes.config import KubernetesConfig
from atoll.drivers.kubernetes.nodes import Load, LoadList, Node, NodeList
from atoll.drivers.kubernetes.objects import (
    ATTEMPT,
    INSTANCE,
    KEEPER,
    MAIN,
    RECALL,
    STOP,
    STOP_WORDS,
    Job,
    JobList,
    ListMeta,
    Meta,
    Pod,
    PodList,
    SomeList,
    SomeObject,
)
from atoll.drivers.kubernetes.payload import IN
from atoll.drivers.kubernetes.streams import EXEC_PROTOCOLS, PORT_PROTOCOLS, PodExecution, PortChannel

log = logging.getLogger(__name__)
PAGE = 1000
"""Objects in one page of a list."""
_MOST_PAGES = 1000
_ONLY_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_ONLY_ITS_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_WATCH_SECONDS = 300


class _Page(Protocol):
    metadata: ListMeta


Page = TypeVar("Page", bound=_Page)


class Cluster:
    """One cluster, as far as this driver needs it."""

    def __init__(self, config: KubernetesConfig, instance: str) -> None:
        self._config = config
        self._instance = instance
        self.api = Api(config)

    async def close(self) -> None:
        """Let go of connections."""
        await self.api.close()

    # -- lists ---------------------------------------------------------------------------------------------------

    def _everywhere(self, group: str, resource: str) -> str:
        """The path of a list: over all namespaces, or of the one that there is."""
        if self._config.many_namespaces:
            return f"{group}/{resource}"
        return f"{group}/namespaces/{self._config.namespace}/{resource}"

    @property
    def _ours(self) -> str:
        return f"{INSTANCE}={self._instance}"

    async def _pages(
        self, path: str, page: type[Page], query: Sequence[tuple[str, str]] = (), accept: str | None = None
    ) -> list[Page]:
        """All pages of a list. Raises DriverError where not every page came."""
        found: list[Page] = []
        following, headers = "", {"Accept": accept} if accept else None
        seconds = max(self._config.timeout, 120.0)
        for _ in range(_MOST_PAGES):
            more = [("continue", following)] if following else []
            asked = [("limit", str(PAGE)), *query, *more]
            content = await self.api.ask("GET", path, query=asked, headers=headers, seconds=seconds)
            try:
                read = await asyncio.to_thread(msgspec.json.decode, content, type=page)
            except msgspec.DecodeError as error:
                raise DriverError(f"The cluster's answer to {path} cannot be read: {error}.") from error
            found.append(read)
            following = read.metadata.next
            if not following:
                return found
        raise DriverError(f"The cluster's list {path} has no end.")

    async def jobs(self) -> list[Job]:
        """All Jobs of this platform."""
        pages = await self._pages(self._everywhere("/apis/batch/v1", "jobs"), JobList, [("labelSelector", self._ours)])
        return [job for page in pages for job in page.items or ()]

    async def pods(self) -> list[Pod]:
        """All pods of this platform."""
        pages = await self._pages(self._everywhere("/api/v1", "pods"), PodList, [("labelSelector", self._ours)])
        return [pod for page in pages for pod in page.items or ()]

    async def pods_of(self, namespace: str, attempt_id: str) -> list[Pod]:
        """The pods of one attempt, by rank."""
        query = [("labelSelector", f"{ATTEMPT}={attempt_id}")]
        pages = await self._pages(f"/api/v1/namespaces/{namespace}/pods", PodList, query)
        pods = [pod for page in pages for pod in page.items or ()]
        return sorted(pods, key=lambda pod: (pod.rank, pod.metadata.name))

    async def namespace_of(self, attempt_id: str) -> str | None:
        """Where the Job of an attempt is; None where there is none."""
        path = self._everywhere("/apis/batch/v1", "jobs")
        for page in await self._pages(path, JobList, [("labelSelector", f"{ATTEMPT}={attempt_id}")]):
            for job in page.items or ():
                if job.metadata.deletion_timestamp is None:
                    return job.metadata.namespace
        return None

    async def has_job(self, namespace: str, name: str) -> bool:
        """Whether a Job is there. Raises DriverError."""
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        try:
            content = await self.api.call("GET", path, headers={"Accept": _ONLY_ITS_METADATA})
        except ApiError as error:
            if error.status == 404:
                return False
            raise self.api.sentence(error) from error
        return _read_object(content, path).metadata.deletion_timestamp is None

    async def job(self, namespace: str, name: str) -> Job | None:
        """A Job; None where it is not there, or about to go. Raises DriverError."""
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
        try:
            content = await self.api.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise self.api.sentence(error) from error
        try:
            job = msgspec.json.decode(content, type=Job)
        except msgspec.DecodeError as error:
            raise DriverError(f"The cluster's answer to {path} cannot be read: {error}.") from error
        return job if job.metadata.deletion_timestamp is None else None

    async def config_maps(self) -> list[SomeObject]:
        """The metadata of this platform's ConfigMaps."""
        path = self._everywhere("/api/v1", "configmaps")
        pages = await self._pages(path, SomeList, [("labelSelector", self._ours)], _ONLY_METADATA)
        return [each for page in pages for each in page.items or ()]

    async def nodes(self) -> list[Node]:
        """All nodes."""
        return [node for page in await self._pages("/api/v1/nodes", NodeList) for node in page.items or ()]

    async def loads(self) -> list[Load]:
        """What pods that have not ended ask for, everybody's."""
        query = [("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed")]
        return [load for page in await self._pages("/api/v1/pods", LoadList, query) for load in page.items or ()]

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields after something of a pod of ours changed, until the server ends the stream."""
        query = [("labelSelector", self._ours), ("watch", "true"), ("timeoutSeconds", str(_WATCH_SECONDS))]
        async with aclosing(self.api.lines(self._everywhere("/api/v1", "pods"), query)) as lines:
            async for _ in lines:
                yield

    # -- objects -------------------------------------------------------------------------------------------------

    async def make(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> SomeObject | None:
        """Make an object; None where one of that name is there already. Raises ApiError, DriverError."""
        try:
            content = await self.api.call("POST", path, body=body, headers=headers)
        except ApiError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return None
            raise
        return _read_object(content, path)

    async def uid(self, path: str, headers: Mapping[str, str]) -> str:
        """The uid of an object. Raises ApiError, DriverError."""
        return _read_object(await self.api.call("GET", path, headers=headers), path).metadata.uid

    async def mark_stop(self, namespace: str, name: str, why: str, words: str = "", *, end: bool) -> bool:
        """Note on a Job why it is stopped; with `end` its pods go, and no more come. Whether it is there.

        Raises DriverError.
        """
        annotations = {STOP: why, STOP_WORDS: words} if words else {STOP: why}
        body: dict[str, Any] = {"metadata": {"annotations": annotations}}
        if end:
            body["spec"] = {"parallelism": 0}
        try:
            await self.api.call(
                "PATCH", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", body=body, kind=MERGE
            )  # fmt: skip
        except ApiError as error:
            if error.status == 404:
                return False
            raise self.api.sentence(error) from error
        return True

    async def mark_recall(self, meta: Meta, how: str | None, *, end: bool = False, unchanged: bool = False) -> bool:
        """Note on a Job how far its recall is; with `end` no pod of it comes any more. Whether that was done.

        It was not where the Job is gone, or, with `unchanged`, is not as in `meta` any more. Raises DriverError.
        """
        metadata: dict[str, Any] = {"annotations": {RECALL: how}}
        if unchanged:
            metadata["resourceVersion"] = meta.resource_version
        body: dict[str, Any] = {"metadata": metadata}
        if end:
            body["spec"] = {"parallelism": 0}
        path = f"/apis/batch/v1/namespaces/{meta.namespace}/jobs/{meta.name}"
        return await self._unless_changed("PATCH", path, body, MERGE)

    async def remove_unchanged(self, meta: Meta) -> bool:
        """Delete a pod if it is as in `meta` still; whether it was, and is gone now. Raises DriverError."""
        conditions = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}
        path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}"
        return await self._unless_changed("DELETE", path, body, "application/json")

    async def _unless_changed(self, method: str, path: str, body: Mapping[str, Any], kind: str) -> bool:
        try:
            await self.api.call(method, path, body=body, kind=kind)
        except ApiError as error:
            if error.status == 403 and method == "DELETE":
                log.warning("no pod can be taken back: %s", self.api.sentence(error))
            elif error.status not in (404, 409):
                raise self.api.sentence(error) from error
            return False
        return True

    async def remove(self, path: str, *, pods_too: bool = False) -> None:
        """Delete an object, and in the background what it owns; one that is gone is fine. Raises DriverError."""
        query = [("propagationPolicy", "Background")] if pods_too else []
        try:
            await self.api.call("DELETE", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise self.api.sentence(error) from error

    # -- inside --------------------------------------------------------------------------------------------------

    async def execute(
        self, pod: Pod, container: str, words: Sequence[str], *, terminal: bool = False, stdin: bool = False,
        apart: bool = False,
    ) -> PodExecution:  # fmt: skip
        """A command in a container. Raises ApiError, DriverError."""
        meta = pod.metadata
        flags = {"stdin": stdin, "stdout": True, "stderr": not terminal, "tty": terminal}
        query = [("container", container), *((name, str(value).lower()) for name, value in flags.items())]
        query += [("command", word) for word in words]
        path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/exec"
        socket = await self.api.websocket(path, query, EXEC_PROTOCOLS)
        return PodExecution(socket, terminal=terminal, apart=apart)

    async def run(self, pod: Pod, container: str, *words: str, limit: int = 1 << 20) -> tuple[int, bytes]:
        """Run a verb of pod.sh to its end: exit code and output. Raises ApiError, DriverError."""
        execution = await self.execute(pod, container, ["/bin/sh", f"{IN}/pod.sh", *words], apart=True)
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._config.timeout):
                while size <= limit and (piece := await execution.read(1 << 20)):
                    pieces.append(piece)
                    size += len(piece)
                return (await execution.wait() if size <= limit else 1), b"".join(pieces)
        except TimeoutError:
            raise DriverError(f"A command in the pod {pod.metadata.name} did not end in time.") from None
        finally:
            await execution.close()

    async def log(self, pod: Pod, container: str, limit: int) -> bytes:
        """The log of a container, as the kubelet keeps it; empty where it keeps none. Raises DriverError."""
        query = [("container", container), ("limitBytes", str(limit))]
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/log"
        try:
            return await self.api.call("GET", path, query=query, headers={"Accept": "*/*"})
        except ApiError as error:
            if error.status in (400, 404):
                return b""
            raise self.api.sentence(error) from error

    async def port(self, pod: Pod, port: int) -> PortChannel:
        """A TCP port in a pod. Raises ApiError, DriverError."""
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}/portforward"
        channel = PortChannel(await self.api.websocket(path, [("ports", str(port))], PORT_PROTOCOLS))
        try:
            await channel.opened()
        except DriverError:
            await channel.close()
            raise
        return channel


def _read_object(content: bytes, path: str) -> SomeObject:
    """The metadata of an object that the server answered with. Raises DriverError."""
    try:
        return msgspec.json.decode(content, type=SomeObject)
    except msgspec.DecodeError as error:
        raise DriverError(f"The cluster's answer to {path} cannot be read: {error}.") from error


def runs(pod: Pod, container: str = MAIN) -> bool:
    """Whether a container runs now."""
    return pod.container(container).running is not None


def kept(pod: Pod) -> bool:
    """Whether the files of a pod can be read now."""
    return runs(pod, KEEPER)
