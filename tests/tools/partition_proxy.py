"""partition_proxy.py TARGET_PORT STATE_FILE - a TCP proxy on 127.0.0.1 that prints its port and simulates a partition, by the
first word of STATE_FILE: `pass`; `up` or `down`: bytes to the target, or from it, are held back, connections stay open (as on
a network that drops packets: nothing is lost, nothing arrives, no error is reported); `both`."""
import select
import socket
import sys
import time

target, state_file = int(sys.argv[1]), sys.argv[2]
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
print(listener.getsockname()[1], flush=True)
pairs = {}  # socket -> (its other side, direction of what it sends)


def state():
    try:
        with open(state_file) as f:
            return (f.read().split() or ["pass"])[0]
    except OSError:
        return "pass"


def close(s):
    other, _ = pairs.pop(s)
    pairs.pop(other, None)
    for one in (s, other):
        one.close()


while True:
    now = state()
    held = {"up": {"up"}, "down": {"down"}, "both": {"up", "down"}}.get(now, set())
    ready, _, _ = select.select([listener] + [s for s, (_, way) in pairs.items() if way not in held], [], [], 0.05)
    for s in ready:
        if s is listener:
            client, _ = listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", target), timeout=5)
            except OSError:
                client.close()
                continue
            pairs[client], pairs[server] = (server, "up"), (client, "down")
        elif s in pairs:
            try:
                data = s.recv(1 << 16)
                if data:
                    pairs[s][0].sendall(data)
                else:
                    close(s)
            except OSError:
                if s in pairs:
                    close(s)
    if not ready:
        time.sleep(0.01)
