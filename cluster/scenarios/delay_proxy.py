"""Passes TCP connections on, each byte later by a fixed time, both ways: what cluster/scenarios/delay starts.

    python3 delay_proxy.py LISTEN-PORT TARGET-HOST TARGET-PORT MILLISECONDS
"""

import asyncio
import sys

# Pieces of 64 KiB on their way at once, each way of a connection: 32 MiB, 2.5 Gbit/s at 100 ms.
PIECES = 512


async def pass_on(reader, writer, delay):
    """One way of a connection, to its end."""
    loop = asyncio.get_running_loop()
    line = asyncio.Queue(PIECES)

    async def receive():
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(65536)
            except ConnectionError:
                piece = b""
            await line.put((loop.time() + delay, piece))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due, piece = await line.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if not piece:
                writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()
    except OSError:
        # The receiver is gone; the sender must hear of it.
        writer.transport.abort()
    finally:
        receiving.cancel()


async def main(listen, host, port, delay):
    async def connected(reader, writer):
        try:
            target_reader, target_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pass_on(reader, target_writer, delay), pass_on(target_reader, writer, delay))
        for end in (writer, target_writer):
            end.close()

    server = await asyncio.start_server(connected, "0.0.0.0", listen)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) / 1000))
