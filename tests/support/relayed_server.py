"""A server for tests of streams, sent along with a job: python3 relayed_server.py PORT|PATH. Python 3.8, no packages.

The first line of a connection says what is wanted of it:

    echo        what comes goes back, until the end
    count       read to the end, then say how many bytes came
    pull N      N bytes
    outside     connect to where OUTSIDE_URL says, send it the rest of what comes, and bring back what it says
    silent      read nothing, for ever
    crowd N     open N connections to where OUTSIDE_URL says, and say how many are still open after a moment
    who         the number of the attempt
    status N    end the whole program with exit code N
"""

from __future__ import annotations

import os
import select
import socket
import socketserver
import sys
import threading
import time


class Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = False

    def handle(self) -> None:
        words = self.rfile.readline().split()
        if words:
            getattr(self, "do_" + words[0].decode())(*map(int, words[1:]))

    def do_echo(self) -> None:
        while True:
            piece = self.rfile.read1(1 << 18)
            if not piece:
                break
            self.connection.sendall(piece)

    def do_count(self) -> None:
        total = 0
        while True:
            piece = self.rfile.read1(1 << 18)
            if not piece:
                break
            total += len(piece)
        self.connection.sendall(b"%d\n" % total)

    def do_pull(self, count: int) -> None:
        piece = bytes(1 << 16)
        while count > 0:
            self.connection.sendall(piece[: min(count, len(piece))])
            count -= len(piece)

    def do_outside(self) -> None:
        with outside() as connection:
            sender = threading.Thread(target=self.send_out, args=(connection,), daemon=True)
            sender.start()
            while True:
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                self.connection.sendall(piece)

    def send_out(self, connection: socket.socket) -> None:
        while True:
            piece = self.rfile.read1(1 << 16)
            if not piece:
                break
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)

    def do_silent(self) -> None:
        time.sleep(3600)

    def do_crowd(self, count: int) -> None:
        crowd = []
        for _ in range(count):
            try:
                crowd.append(outside())
            except OSError:
                pass
        time.sleep(1)
        gone = len(select.select(crowd, [], [], 0)[0]) if count < 500 else 0
        self.connection.sendall(b"%d\n" % (len(crowd) - gone))

    def do_who(self) -> None:
        self.connection.sendall(os.environ["ATOLL_ATTEMPT"].encode() + b"\n")

    def do_status(self, code: int) -> None:
        os._exit(code)


def outside() -> socket.socket:
    host, _, port = os.environ["OUTSIDE_URL"].split("/")[2].partition(":")
    return socket.create_connection((host, int(port)))


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    place = sys.argv[1]
    server = TcpServer(("127.0.0.1", int(place)), Handler) if place.isdigit() else UnixServer(place, Handler)
    server.serve_forever()
