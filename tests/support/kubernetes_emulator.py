"""A stateful emulator of the API server that plays Jobs, for tests where there is no cluster. It counts as a fake.

It is kmock's, with what that leaves out and the driver uses: label selectors, pages, uids, codes of errors; and with a
player in place of controllers and kubelets, which moves pods through their phases. Nothing runs, and nobody can
reach into a pod.
"""

import asyncio
import copy
import itertools
import re
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import aiohttp.web
import kmock

JOBS = kmock.resource("batch", "v1", "jobs")
PODS = kmock.resource("", "v1", "pods")
MAPS = kmock.resource("", "v1", "configmaps")
NODES = kmock.resource("", "v1", "nodes")
_EXPORT = re.compile(r"\bFAKE_(\w+)='([^']*)'")
_SETTING = re.compile(r"^(pod_\w+)='([^']*)'$", re.MULTILINE)


def now() -> str:
    """This moment, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Emulator(kmock.KubernetesEmulator):
    """The API server. `bodies` are all objects that were made, `lists` counts the lists by resource."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for resource in (JOBS, PODS, MAPS, NODES, kmock.resource("", "v1", "secrets"),
                         kmock.resource("", "v1", "services")):  # fmt: skip
            self.resources[resource] = kmock.ResourceInfo()
        self.bodies: list[dict[str, Any]] = []
        self.lists: Counter[str] = Counter()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of all requests."""
        self.page = 1000
        """Most objects in one page, whatever was asked for."""
        self.expired: str | None = None
        """The token of a page that is not served any more."""
        self.refuse: tuple[int, str, str] | None = None
        """Status, reason and message with which every new Job is refused."""
        self.full = False
        """Whether pods find no node."""
        self.room = asyncio.Event()
        """Set when `full` ends."""
        self.namespaces: set[str] = set()
        self.players: set[asyncio.Task[None]] = set()
        self.numbers = itertools.count()

    async def __call__(self, raw_request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        """Requests on namespaces as such are not for kmock 0.8, which takes their path for a part of another."""
        if raw_request.path != "/api/v1/namespaces":
            return await super().__call__(raw_request)
        self.seen.append((raw_request.method, raw_request.path, dict(raw_request.headers)))
        body = await raw_request.json()
        self.bodies.append(body)
        known = body["metadata"]["name"] in self.namespaces
        self.namespaces.add(body["metadata"]["name"])
        return await self._render_error(_error(409, "AlreadyExists", "x")) if known else aiohttp.web.json_response(body)

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        self.seen.append((request.method.value, request.url.path, dict(request.headers)))
        created = request.action == kmock.action.CREATE
        if created and request.namespace is not None and request.namespace not in self.namespaces:
            return await self._render_error(_error(404, "NotFound", f'namespaces "{request.namespace}" not found'))
        if created and self.refuse is not None and request.resource == JOBS:
            return await self._render_error(_error(*self.refuse))
        if created:
            self.bodies.append(copy.deepcopy(request.data))
            meta = request.data["metadata"]
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            if request.namespace is not None:
                meta["namespace"] = request.namespace
        if request.subresource is not None:
            return await self._render_error(_error(404, "NotFound", "nobody can reach into a pod of the emulator"))
        if request.action == kmock.action.DELETE and not self._meets(request):
            return await self._render_error(_error(409, "Conflict", "the object has been modified"))
        before = self._gone(request) if request.action == kmock.action.DELETE else None
        response = await super()._handle(request)
        if created and request.resource == JOBS and response.status < 300:
            self._play(request.data)
        if request.action == kmock.action.UPDATE and request.resource == JOBS:
            await self._heed(request.namespace, request.name)
        if before is not None:
            await self._remove_pods(before)
        return response

    async def _render_error(self, exc: Exception) -> aiohttp.web.StreamResponse:
        if isinstance(exc, kmock.KubernetesError) and exc.status == 409:
            exc = _error(409, "AlreadyExists", "it is there already")
        return await super()._render_error(exc)

    async def _serve_list(self, request: Any) -> Any:
        self.lists[request.resource.plural] += 1
        whole: Any = await super()._serve_list(request)
        asked = {name: values[-1] for name, values in parse_qs(request.url.query_string).items()}
        selector = dict(part.split("=") for part in asked.get("labelSelector", "").split(",") if part)
        items = [each for each in whole["items"] if _selected(each, selector)]
        if self.expired is not None and asked.get("continue") == self.expired:
            raise _error(410, "Expired", "The provided continue parameter is too old")
        start = int(asked.get("continue", "0"))
        size = min(int(asked.get("limit", "1000")), self.page)
        metadata = {"resourceVersion": "1"}
        if start + size < len(items):
            metadata["continue"] = str(start + size)
        return {"kind": "List", "metadata": metadata, "items": items[start : start + size]}

    # -- the player ----------------------------------------------------------------------------------------------

    def _play(self, job: dict[str, Any]) -> None:
        task = asyncio.create_task(self._life(job))
        self.players.add(task)
        task.add_done_callback(self.players.discard)

    async def _life(self, job: dict[str, Any]) -> None:
        """One pod from its place to its end, as its variables FAKE_RUNTIME and FAKE_EXIT say."""
        meta, template = job["metadata"], job["spec"]["template"]
        namespace, name = meta["namespace"], f"{meta['name']}-{next(self.numbers):05d}"
        if job["spec"].get("suspend"):
            return
        data = self.objects[MAPS, namespace, meta["name"]].raw["data"]
        played = dict(_EXPORT.findall(data["launch"]))
        settings = dict(_SETTING.findall(data["place"]))
        pod = {
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"], "status": {"phase": "Pending"},
            "metadata": {**template["metadata"], "name": name, "namespace": namespace, "creationTimestamp": now(),
                         "uid": str(uuid.uuid4()), "resourceVersion": "1"},
        }  # fmt: skip
        self.objects[PODS, namespace, name] = pod
        await self._tell("ADDED", pod)
        while self.full:
            await self.room.wait()
        if self.objects[PODS, namespace, name].deleted:
            return
        self.objects[PODS, namespace, name].patch(
            {"metadata": {"resourceVersion": "2"}, "spec": {"nodeName": "node-0"}}
        )
        began = now()
        running = {"running": {"startedAt": began}}
        await self._change(namespace, name, "Running", main=running, keeper=running)
        runtime, walltime = float(played.get("RUNTIME", "0")), float(settings.get("pod_walltime") or "inf")
        await asyncio.sleep(min(runtime, walltime))
        code = int(played.get("EXIT", "0")) if runtime <= walltime else 143
        asked = "" if runtime <= walltime else "asked timed_out\n"
        end = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "startedAt": began,
               "finishedAt": now(), "message": f"{asked}memory 4096 0\nexit {code}\n"}  # fmt: skip
        await self._change(namespace, name, "Running", main={"terminated": end}, keeper=running)

    async def _change(self, namespace: str, name: str, phase: str, **states: Any) -> None:
        key = (PODS, namespace, name)
        if key not in self.objects or self.objects[key].deleted:
            return
        statuses = [{"name": container, "state": state} for container, state in states.items()]
        self.objects[key].patch({"status": {"phase": phase, "containerStatuses": statuses}})
        await self._tell("MODIFIED", self.objects[key].raw)

    async def _tell(self, kind: str, pod: Any) -> None:
        await self._buses[PODS].put({"type": kind, "object": pod})

    def _meets(self, request: Any) -> bool:
        """Whether the object is still as the request says that it is."""
        data = request.data if isinstance(request.data, dict) else {}
        key = (request.resource, request.namespace, request.name)
        wanted = data.get("preconditions") or {}
        if not wanted or key not in self.objects or self.objects[key].deleted:
            return True
        meta = self.objects[key].raw["metadata"]
        return all(meta.get(name) == value for name, value in wanted.items())

    def _gone(self, request: Any) -> dict[str, Any] | None:
        """The Job that is about to be deleted."""
        key = (JOBS, request.namespace, request.name)
        there = request.resource == JOBS and key in self.objects and not self.objects[key].deleted
        return dict(self.objects[key].raw) if there else None

    async def _heed(self, namespace: str, name: str) -> None:
        """A Job without room for any pod loses those that it has, unless they have ended."""
        job = self.objects[JOBS, namespace, name].raw
        if job["spec"].get("parallelism") == 0:
            await self._remove_pods(dict(job))

    async def _remove_pods(self, job: dict[str, Any]) -> None:
        attempt = job["metadata"]["labels"]["atoll/attempt"]
        for (resource, _, _), pod in list(self.objects.items()):
            if resource == PODS and not pod.deleted and pod.raw["metadata"]["labels"].get("atoll/attempt") == attempt:
                pod.delete()
                await self._tell("DELETED", pod.last.raw)

    async def stop_playing(self) -> None:
        """End all that plays."""
        for task in list(self.players):
            task.cancel()
        await asyncio.gather(*self.players, return_exceptions=True)

    def add_node(self, name: str, *, labels: dict[str, str] | None = None, **allocatable: str) -> None:
        """Put a node into the cluster."""
        amounts = {"cpu": "64", "memory": "64Gi", **allocatable}
        self.objects[NODES, None, name] = {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels or {}}, "spec": {},
            "status": {"allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
        }  # fmt: skip

    def set_status(self, resource: Any, namespace: str | None, name: str, status: dict[str, Any]) -> None:
        """Give an object a status."""
        self.objects[resource, namespace, name].patch({"status": status})


def _error(status: int, reason: str, message: str) -> Exception:
    return kmock.KubernetesError(status=status, reason=reason, message=message)


def _selected(item: Any, selector: dict[str, str]) -> bool:
    labels = item.get("metadata", {}).get("labels", {})
    return all(labels.get(key) == value for key, value in selector.items())
