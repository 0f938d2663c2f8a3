"""`atoll up`: starts the platform, the proxy before it and the relay beside it, and starts each again when it ends.

Both listening sockets are opened here and stay open, so that nobody is refused while a part is started again. Parts are
killed when this process dies, however it does: then `atoll up` works again at once, on the same port.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys

from atoll.api.flags import Flags, parse
from atoll.api.folders import prepare, sole_user
from atoll.api.listening import listen, public_url
from atoll.control.relay import reserve
from atoll.core.errors import AtollError
from atoll.front import proxy
from atoll.front.parts import Part, PartFailed, Runner

log = logging.getLogger("atoll.front")
_PLATFORM = "atoll.api.server"
_RELAY = "atoll.control.relay"


def _platform(arguments: list[str], listener: socket.socket, url: str, ready: int) -> Part:
    number = listener.fileno()
    command = [
        sys.executable, "-m", _PLATFORM, *arguments,
        "--listen-on", str(number), "--url", url, "--tell-ready", str(ready),
    ]  # fmt: skip
    # --stop-jobs waits for jobs that have a grace of their own: nobody but a second Ctrl-C ends that sooner
    return Part("the platform", command, descriptors=(number, ready), first=True)


def _relay(flags: Flags, reserved: socket.socket) -> Part:
    """The relay; it waits by itself for the platform's database. Its port stays reserved while it is started again."""
    number = reserved.fileno()
    command = [
        sys.executable, "-m", _RELAY, *flags.places, "--port", str(flags.config.relay_port), "--reserved", str(number),
    ]  # fmt: skip
    return Part("the relay", command, descriptors=(number,))


async def serve(flags: Flags, arguments: list[str]) -> None:
    """Run all parts until SIGINT or SIGTERM. Raises AtollError, and PartFailed where the platform cannot start."""
    config = flags.config
    program = proxy.find_traefik()
    proxy.check(config.tls)
    with contextlib.ExitStack() as held:
        public = held.enter_context(listen(config.host, config.port))
        inner = held.enter_context(listen("127.0.0.1", 0))
        folders = prepare(config)
        held.enter_context(sole_user(folders, "front.lock"))
        proxy.write_static(folders.front, config.tls)
        proxy.write_routes(folders.front, f"http://127.0.0.1:{inner.getsockname()[1]}", config.public_host, config.tls)
        hears, tells = os.pipe()
        platform = Runner(_platform(arguments, inner, public_url(config, public), tells), _Ready(hears).is_so)
        others = [Runner(proxy.part(program, folders.front, public.fileno()))]
        if config.relay.target is not None:
            others.append(Runner(_relay(flags, held.enter_context(reserve(config.relay_port)))))
        await _run(platform, others)


class _Ready:
    """Whether the platform has ever said that it is ready: a byte through a pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._was = False

    def is_so(self) -> bool:
        if not self._was:
            try:
                self._was = bool(os.read(self._descriptor, 100))
            except BlockingIOError:
                pass  # nothing yet
        return self._was


async def _run(platform: Runner, others: list[Runner]) -> None:
    """Run the parts until told to end: first the platform, which may have jobs to stop, then the others."""
    asked = asyncio.Event()

    def ask(number: signal.Signals) -> None:
        platform.end(number)  # a second one too: the platform knows what that means
        asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask, number)
    runners = [platform, *others]
    running = [asyncio.create_task(runner.run(), name=runner.part.name) for runner in runners]
    stopping = asyncio.create_task(asked.wait())
    try:
        done, _ = await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises where a part cannot be started
        await platform.ended(None)
    finally:
        stopping.cancel()
        for runner in runners:
            runner.end()
        await asyncio.gather(*(runner.ended(runner.part.last_words) for runner in runners))
        for task in running:
            task.cancel()
        await asyncio.gather(stopping, *running, return_exceptions=True)


def main() -> None:
    """Read the flags, run the parts, and tell in one sentence what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    arguments = sys.argv[1:]
    try:
        asyncio.run(serve(parse(arguments), arguments))
    except AtollError as error:
        print(f"atoll up: {error.sentence}", file=sys.stderr)
        sys.exit(error.exit_code)
    except PartFailed as error:
        sys.exit(error.code if error.code > 0 else 1)


if __name__ == "__main__":
    main()
