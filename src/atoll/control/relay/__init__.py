"""The relay: streams between people and the servers that run inside attempts, in a process of its own.

    python -m atoll.control.relay --data DIR [--port PORT] [--target HOST:PORT] [--database URL] [--config FILE]

Forwards, a program on the relay's machine (an HTTP proxy) connects to a job's address, `address_of(job, port)`, and is
brought to the server inside the job's attempt, at whatever site that runs. Backwards, the server connects to a port
inside its attempt, and is brought to the one target that the relay was told (the hub's API); nothing else is reached.

A job has its streams carried if it is of class interactive or service, not an array, and has a port named `relay`
(`PORT_NAME`; its number from `random_port`), at which its command runs the agent: the file `AGENT`, whose docstring
describes its command line. What is to be carried is read from the store again and again, and nothing is kept
elsewhere: a relay that was killed and started goes on at the same addresses. A restart of the platform leaves it alone.

What nobody else can do. Every attempt has a secret of its own, which relay and agent prove to each other before the
first byte of a stream; so who takes the agent's port at the site gets nothing, and neither does who finds the agent.
On the relay's machine, `reserve` holds the port at all addresses for programs of the same account, whether the relay
runs or not: nobody else listens at a job's address as long as one process has the socket that it returns, and whoever
sends streams there (the proxy) should therefore inherit it. Programs of the platform's own account are trusted.
"""

from pathlib import Path

from atoll.control.relay.addresses import address_of, reserve
from atoll.control.relay.secret import PORT_NAME, random_port

AGENT = Path(__file__).with_name("agent.py")
"""The program to send along with the job, and to run around its server."""

__all__ = ["AGENT", "PORT_NAME", "address_of", "random_port", "reserve"]
