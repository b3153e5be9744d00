"""A chat backend in Python: rooms over `tcp`, two bytes of length before each message, PROXY v2 first. Standard library alone.

    python3 chat.py [HOST:PORT]
"""

import asyncio
import ipaddress
import struct
import sys

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIELD_CONV = 0xE0
HELP = "/join ROOM, /who, /quit; anything else is said to the room"
QUEUE = 64


class Player:
    """One session: the gateway's connection for one KCP client."""

    def __init__(self, writer, name):
        self.writer, self.name, self.room = writer, name, None

    def tell(self, line):
        message = line.encode()[:65535]
        # One who does not read misses what the others say; nobody waits for them.
        if self.writer.transport.get_write_buffer_size() < QUEUE * 1024:
            self.writer.write(struct.pack(">H", len(message)) + message)


rooms = {}


def say(room, line):
    for player in rooms.get(room, ()):
        player.tell(line)


def move(player, room):
    if player.room is not None:
        rooms[player.room].discard(player)
        say(player.room, f"* {player.name} left")
        if not rooms[player.room]:
            del rooms[player.room]
    player.room = room
    if room is not None:
        rooms.setdefault(room, set()).add(player)
        say(room, f"* {player.name} joined {room}")


async def read_proxy(reader):
    """The PROXY header: who the client is, and the number of its conversation."""
    head = await reader.readexactly(16)
    if head[:12] != SIGNATURE or head[12] != 0x21:
        raise ValueError("no PROXY header")
    body = await reader.readexactly(int.from_bytes(head[14:16], "big"))
    size = {0x1: 4, 0x2: 16}[head[13] >> 4]
    client = ipaddress.ip_address(body[:size])
    (port,) = struct.unpack_from(">H", body, 2 * size)
    at, conv = 2 * size + 4, None
    while at + 3 <= len(body):
        kind, length = struct.unpack_from(">BH", body, at)
        if kind == FIELD_CONV:
            conv = int.from_bytes(body[at + 3 : at + 3 + length], "big")
        at += 3 + length
    return client, port, conv


async def read_line(reader):
    (length,) = struct.unpack(">H", await reader.readexactly(2))
    return (await reader.readexactly(length)).decode(errors="replace").strip()


async def serve(reader, writer):
    player = None
    try:
        client, port, conv = await read_proxy(reader)
        player = Player(writer, (await read_line(reader))[:16] or "nobody")
        print(f"{player.name}: {client} port {port}, conversation {conv}", flush=True)
        player.tell(f"welcome, {player.name}. {HELP}")
        move(player, "lobby")
        while True:
            line = await read_line(reader)
            if line.startswith("/join "):
                move(player, line[6:].strip()[:16] or "lobby")
            elif line == "/who":
                names = sorted(other.name for other in rooms[player.room])
                player.tell(f"* in {player.room}: {', '.join(names)}")
            elif line == "/quit":
                player.tell("bye")
                break
            elif line.startswith("/"):
                player.tell(HELP)
            elif line:
                say(player.room, f"{player.name}: {line}")
    except (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError) as error:
        if player is None:
            print(f"refused: {error}", flush=True)
    finally:
        if player is not None:
            move(player, None)
        writer.close()


async def main():
    host, _, port = (sys.argv[1:] or ["127.0.0.1:7000"])[0].rpartition(":")
    server = await asyncio.start_server(serve, host, int(port))
    host, port = server.sockets[0].getsockname()[:2]
    print(f"chat in Python on {host}:{port}", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
