"""AtollSpawner: every server that a JupyterHub starts is a job of class interactive of Atoll's queue.

    c.JupyterHub.spawner_class = "atoll"
    c.AtollSpawner.url = "https://atoll.example.org"
    c.AtollSpawner.token = "..."

The hub and its proxy run on the machine of Atoll's relay, whose target is the hub's API. The only module that imports
JupyterHub; loaded by JupyterHub itself, by the entry point `atoll` of `jupyterhub.spawners`.

What the hub does to its servers when it starts decides the shape of this. It stops each one whose `poll` raises or that
does not answer, and it has kept nothing of those whose `start` had not returned. So the platform is where the truth is:
a session's job carries the names of its hub and server as labels, and is found again by them. `poll` says that a server
runs until the platform says that it does not; a stop that belongs to the hub's own start leaves the job alone; and a
start takes the job that is there already.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from cryptography.fernet import Fernet, InvalidToken
from jupyterhub.spawner import Spawner
from tornado.web import HTTPError
from traitlets import Dict, Integer, Unicode, default

from atoll.client.asynchronous import AsyncClient
from atoll.client.models import Job
from atoll.control.relay import AGENT, address_of
from atoll.core.config import DEFAULT_PORT
from atoll.core.errors import AtollError, Conflict, Internal, NotFound, Unavailable
from atoll.core.states import WAITING, JobState
from atoll.sessions.acting import acting, find_session, refused
from atoll.sessions.command import Session, check_choices, document
from atoll.sessions.progress import Story, ended, step

_HUB, _SERVER, _TOKEN = "jupyterhub", "jupyterhub-server", "jupyterhub-token"
"""Names of labels."""
_FOREVER = 10 * 365 * 86_400
"""Seconds for which JupyterHub itself waits for a start: the queue decides."""
_ASK_EVERY = 5.0
"""Seconds after which a job that waits is asked about, though nothing was told of it: its place may have changed."""
_TRY_EVERY = 0.25
"""Seconds between tries to reach a server whose job runs."""
_PATIENCE = 10.0
_LAST_WORDS = 2000
"""Bytes of the error output of a session that failed."""
_LEAVING = frozenset({JobState.STOPPING, JobState.FINISHING})


class StartFailed(HTTPError):
    """A session that could not be started, with the words that its person is to see.

    400 is what JupyterHub does not count as a failure of its own: after several of those it would end itself.
    """

    def __init__(self, words: str, status: int = 400) -> None:
        super().__init__(status, "%s", words)
        self.jupyterhub_message = words


class AtollSpawner(Spawner):  # type: ignore[misc]  # JupyterHub has no types
    """Starts, watches and stops one server of one person."""

    url = Unicode(config=True, help="Address of the Atoll platform. Default: $ATOLL_URL.")
    token = Unicode(
        config=True, help="Token of an administrator of it, for a hub of many people. Default: $ATOLL_TOKEN."
    )
    start_timeout = Integer(
        300, config=True,
        help="Seconds that a session's server has to answer, from when its job runs. Waiting does not count.",
    )  # fmt: skip
    relay_port = Integer(0, config=True, help="Port of the relay on this machine. Default: the one after url's.")
    job = Dict(config=True, help="What each session's job has: cpu, memory, walltime, environment, project, ...")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._job_id: int | None = None
        self._story = Story()
        self._patience = float(self.start_timeout)
        self._checked_at_boot = False
        """Whether the hub, which is starting, is finding out whether this server is there."""

    @default("url")
    def _default_url(self) -> str:
        return os.environ.get("ATOLL_URL", f"http://127.0.0.1:{DEFAULT_PORT}")

    @default("token")
    def _default_token(self) -> str:
        return os.environ.get("ATOLL_TOKEN", "")

    @default("env_keep")
    def _default_env_keep(self) -> list[str]:
        return []  # the hub's own paths mean nothing at a site

    @default("notebook_dir")
    def _default_notebook_dir(self) -> str:
        return "~"

    def options_from_form(self, form_data: dict[str, list[str]]) -> dict[str, str]:
        """What a form of the hub's sends, each field of which comes as a list."""
        return {name: values[0] for name, values in form_data.items() if values}

    # ---- what JupyterHub keeps for us

    def load_state(self, state: dict[str, Any]) -> None:
        """Take in what `get_state` gave before the hub was started again."""
        super().load_state(state)
        self._job_id = state.get("job")

    def get_state(self) -> dict[str, Any]:
        """The job, which is quicker than looking for it."""
        state: dict[str, Any] = super().get_state()
        return {**state, "job": self._job_id} if self._job_id is not None else state

    def clear_state(self) -> None:
        """Forget the job."""
        super().clear_state()
        self._job_id = None

    # ---- start

    def start(self) -> Coroutine[Any, Any, str]:
        """Start the server, or take the one that is there; its address once it answers.

        JupyterHub reads `start_timeout` after this call, and ends what took longer. Here it counts from when the job
        runs, so that time in the queue does not.
        """
        if self.start_timeout != _FOREVER:
            self._patience = float(self.start_timeout)
            self.start_timeout = _FOREVER
        self._checked_at_boot = False
        self._story.begin()
        return self._start()

    async def _start(self) -> str:
        try:
            client = await self._client()
            while True:
                job, adopted = await self._take(client)
                self._job_id = job.job
                if not adopted or job.state not in _LEAVING:
                    break
                self._story.tell(5, "The session before this one is being ended.")
                await client.wait(job.job)  # then it may have been requeued, or there is room for a new one
            await self._until_it_answers(client, job.job)
        except AtollError as error:
            raise StartFailed(error.sentence, 503 if isinstance(error, Unavailable | Internal) else 400) from error
        return self._address()

    async def _take(self, client: AsyncClient) -> tuple[Job, bool]:
        """The session's job, and whether it was there already. Never makes a second one beside one that goes on."""
        conflict: Conflict | None = None
        for _ in range(3):
            last = await self._find(client)
            if last is not None and not last.ended:
                self._take_token(last)
                self.log.info("%s: job %d goes on", self._log_name, last.job)
                return last, True
            # one key for each session that follows another: of two starts that know of the same, one makes the job
            after = str(last.job if last is not None else 0)
            try:
                return await self._submit(client, after), False
            except Conflict as error:
                if error.code != "idempotency_key_reused":
                    raise
                conflict = error
        assert conflict is not None
        raise conflict

    async def _submit(self, client: AsyncClient, after: str) -> Job:
        path = urlsplit(self.hub.api_url).path
        session = Session(
            name=self._job_name, command=[*self.cmd, *self.get_args()], hub_api=path,
            activity=f"{path}/users/{self.user.escaped_name}/activity", prefix=self.server.base_url,
            environment=self.get_env(), fields={**self.job, **check_choices(self.user_options)},
            labels={**self._labels, _TOKEN: self._seal().encrypt(self.api_token.encode()).decode()},
        )  # fmt: skip
        agent = await client.upload(AGENT)
        token = await self._send_token(client)
        key = f"jupyterhub-{self._keyed('start', self.user.name, self.name, after)[:40]}"
        made = await client.submit(document(session, agent, token), idempotency_key=key)
        for warning in made.warnings:
            self._story.tell(5, warning)
        self.log.info("%s: submitted as job %d", self._log_name, made.id)
        return await client.job(made.id)

    async def _send_token(self, client: AsyncClient) -> str:
        with tempfile.TemporaryDirectory(prefix="atoll-") as folder:  # nobody else may look into it
            file = Path(folder) / "token"
            file.write_text(self.api_token)
            return await client.upload(file)

    def _take_token(self, job: Job) -> None:
        """Go on with the token that the server has; JupyterHub then throws away the new one that it made."""
        sealed = job.spec.get("labels", {}).get(_TOKEN, "")
        try:
            self.api_token = self._seal().decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise Conflict(
                "not_ours",
                f"The session's job {job.id} cannot be taken over: its label {_TOKEN} was changed; end it with: "
                f"atoll cancel {job.id}.",
            ) from None

    async def _until_it_answers(self, client: AsyncClient, job_id: int) -> None:
        """Watch the job, tell of it, and return once its server answers. Raises StartFailed where it never will."""
        stirred = asyncio.Event()
        watching = asyncio.create_task(_watch(client, job_id, stirred))
        running_since: float | None = None
        ask_at = 0.0
        try:
            while True:
                if stirred.is_set() or time.monotonic() >= ask_at:
                    stirred.clear()
                    state = await self._look(client, job_id)
                    ask_at = time.monotonic() + _ASK_EVERY
                    if state is JobState.RUNNING:
                        running_since = running_since or time.monotonic()
                    elif state is not None:
                        running_since = None  # evicted, perhaps: it waits again
                if running_since is not None:
                    if await self._answers(job_id):
                        return
                    if time.monotonic() - running_since > self._patience:
                        raise StartFailed(
                            f"The session's job {job_id} runs, but its server has not answered within "
                            f"{self._patience:.0f} s. {await self._last_words(client, job_id)}".strip()
                        )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TRY_EVERY if running_since is not None else _ASK_EVERY):
                        await stirred.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _look(self, client: AsyncClient, job_id: int) -> JobState | None:
        """Tell how the job does; its state, None where the platform does not say. Raises StartFailed."""
        try:
            job, why = await client.job(job_id), await client.why(job_id)
            if job.ended:
                raise StartFailed(ended(job, why, await self._last_words(client, job_id)))
        except Unavailable:
            self._story.tell(10, "The platform does not answer now; the session keeps its place.")
            return None
        self._story.tell(*step(job, why))
        return JobState(job.state)

    async def _last_words(self, client: AsyncClient, job_id: int) -> str:
        try:
            part = await client.logs(job_id, "stderr", offset=-_LAST_WORDS)
        except AtollError:
            return ""  # it never came so far as to have any
        return part.data.decode("utf-8", "replace").strip()

    async def _answers(self, job_id: int) -> bool:
        host, port = address_of(job_id, self._relay_port)
        try:
            async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
                answer = await http.get(f"http://{host}:{port}{self.server.base_url}api")
        except httpx2.TransportError:
            return False
        return answer.status_code < 500

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the page of a start shows."""
        async for event in self._story.listen():
            yield event

    # ---- poll

    async def poll(self) -> int | None:
        """None while the server runs, will run again, or nobody can say; else its exit code. Never raises."""
        if self._check_pending:
            self._checked_at_boot = True
        try:
            client = await self._client()
            known = self._job_id is not None
            job = await self._current(client)
        except AtollError as error:
            if refused(error):
                await acting(self.url, self.token, _PATIENCE).forget(self.user.name)
            self.log.warning("%s: taken for running: %s", self._log_name, error.sentence)
            self.will_resume = True
            return None
        except Exception:
            self.log.exception("%s: taken for running", self._log_name)
            self.will_resume = True
            return None
        # what is kept, so that the next start can take the session as it is: the server's token
        self.will_resume = job is not None and not job.ended
        if job is None:
            return 0
        if job.ended:
            return job.exit_code if job.exit_code is not None else int(job.state != JobState.SUCCEEDED)
        self._job_id = job.job
        if self._checked_at_boot and self._check_pending and not known and job.state in WAITING:
            return 0  # its start had not returned: there is nothing to be reached, and the next start takes it
        return None

    def start_polling(self) -> None:
        """The hub's check is over, and found the server there."""
        self._checked_at_boot = False
        super().start_polling()

    async def get_url(self) -> str:
        """Where the server is, whatever the hub remembers."""
        return self._address() if self._job_id is not None else str(await super().get_url())

    # ---- stop

    async def stop(self, now: bool = False) -> None:
        """End the session, and wait until it has ended; but leave it where the hub only tidies up as it starts."""
        if self._checked_at_boot:
            self._checked_at_boot = False
            self.will_resume = True
            self.log.warning("%s: it does not answer now; its job goes on", self._log_name)
            return
        try:
            client = await self._client()
            job = await self._current(client)
            if job is not None and not job.ended:
                await client.cancel(job.job)
                await client.wait(job.job)
        except NotFound:
            pass  # it has ended so long ago that it is forgotten
        except AtollError as error:
            raise HTTPError(503, "%s", error.sentence) from error
        self.will_resume = False

    # ---- small things

    async def _client(self) -> AsyncClient:
        return await acting(self.url, self.token, _PATIENCE).as_person(self.user.name)

    async def _current(self, client: AsyncClient) -> Job | None:
        """The session's job; None where there is none."""
        if self._job_id is None:
            return await self._find(client)
        try:
            return await client.job(self._job_id)
        except NotFound:
            return None

    async def _find(self, client: AsyncClient) -> Job | None:
        return await find_session(client, self.user.name, self._job_name, self._labels)

    @property
    def _job_name(self) -> str:
        return f"jupyter-{self.name}" if self.name else "jupyter"

    @property
    def _labels(self) -> dict[str, str]:
        return {_HUB: self._keyed("hub")[:16], _SERVER: self.name}

    def _keyed(self, *words: str) -> str:
        """A text that only this hub makes of these words: its key is the secret that it keeps over its restarts."""
        return hmac.new(self._secret, "\0".join(words).encode(), hashlib.sha256).hexdigest()

    def _seal(self) -> Fernet:
        return Fernet(urlsafe_b64encode(hashlib.sha256(b"atoll token\0" + self._secret).digest()))

    @property
    def _secret(self) -> bytes:
        secret = self.user.settings["cookie_secret"]
        return secret if isinstance(secret, bytes) else str(secret).encode()

    @property
    def _relay_port(self) -> int:
        return self.relay_port or (urlsplit(self.url).port or DEFAULT_PORT) % 65535 + 1

    def _address(self) -> str:
        assert self._job_id is not None
        host, port = address_of(self._job_id, self._relay_port)
        return f"http://{host}:{port}"


async def _watch(client: AsyncClient, job_id: int, stirred: asyncio.Event) -> None:
    """Set `stirred` whenever something is told of the job. Where nothing can be told, asking now and then does."""
    with contextlib.suppress(AtollError):
        async for _ in client.events([job_id]):
            stirred.set()
