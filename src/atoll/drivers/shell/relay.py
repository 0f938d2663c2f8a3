"""Reaches a unix socket with the rights of an account, by a small process of that account at the site."""

import asyncio

from atoll.drivers.base import DriverError, Execution

_PROGRAM = """
import os, socket, sys, threading
far = socket.socket(socket.AF_UNIX)
try:
    far.connect(sys.argv[1])
except OSError as error:
    os.write(1, b"-" + error.strerror.encode() + b"\\n")
    sys.exit(1)
os.write(1, b"+\\n")
def send():
    try:
        while True:
            data = os.read(0, 65536)
            if not data:
                break
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
    except OSError:
        pass
threading.Thread(target=send, daemon=True).start()
while True:
    data = far.recv(65536)
    if not data:
        break
    while data:
        data = data[os.write(1, data):]
"""
_LONGEST_ANSWER = 500


def relay_words(path: str) -> list[str]:
    """The command that carries its input and output to the socket at `path`; `answered` reads its first line."""
    return ["python3", "-I", "-S", "-c", _PROGRAM, path]


async def answered(relay: Execution, path: str, seconds: float) -> Execution:
    """The relay once it has reached the socket. Raises DriverError in the system's words where it has not."""
    said = b""
    try:
        async with asyncio.timeout(seconds):
            while not said.endswith(b"\n") and len(said) < _LONGEST_ANSWER:
                piece = await relay.read(1)
                if not piece:
                    break
                said += piece
    except TimeoutError:
        await relay.close()
        raise DriverError(f"{path} did not answer within {seconds:g} s.") from None
    except BaseException:
        await relay.close()
        raise
    if said == b"+\n":
        return relay
    await relay.close()
    words = said.removeprefix(b"-").decode("utf-8", "replace").strip() or "the connection ended"
    raise DriverError(f"{path} cannot be reached: {words}.")
