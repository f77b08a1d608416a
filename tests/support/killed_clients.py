"""Fork clients that use shared memory, and kill each at a random moment: `python killed_clients.py URL COUNT SEED`.

The moment counts from its start for every other client, and for the rest from their first answer. Prints how many
answers each had had when it was killed. This process never opens a connection itself, so that its forks
can; they share its imports, which makes a client cost a few milliseconds.
"""

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback

import numpy as np
from complete_server import HEADERS

from clients import Client, InferenceError

AT_A_TIME = 8
LONGEST_LIFE_S = 0.25
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def live(url: str, answered: mmap.mmap, slot: int) -> None:
    """Ask for ever, in two sizes, counting the answers; a server that is away is waited for."""
    client = Client(url, shared_memory="system", headers=HEADERS)
    arrays = [np.full((batch, 65_536), slot, np.float32) for batch in (1, 2)]
    count, model = 0, None
    while True:
        try:
            model = model or client.model("large")
            answer = model(x=arrays[count % 2])["y"]
        except InferenceError:
            time.sleep(0.02)
            continue
        assert np.array_equal(answer, arrays[count % 2]), "the answer is another client's"
        count += 1
        struct.pack_into("i", answered, 4 * slot, count)


def main(url: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    answered = mmap.mmap(-1, 4 * count)
    deaths: dict[int, float] = {}
    waiting: dict[int, int] = {}  # for its first answer: process and slot
    slot = 0

    def answers(of: int) -> int:
        return int(struct.unpack_from("i", answered, 4 * of)[0])

    while slot < count or deaths or waiting:
        while slot < count and len(deaths) + len(waiting) < AT_A_TIME:
            pid = os.fork()
            if pid == 0:
                try:
                    live(url, answered, slot)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            if slot % 2:
                waiting[pid] = slot
            else:
                deaths[pid] = time.monotonic() + rng.uniform(0, LONGEST_LIFE_S)
            slot += 1
        for pid in [pid for pid, of in waiting.items() if answers(of) or os.waitid(os.P_PID, pid, ENDED) is not None]:
            del waiting[pid]
            deaths[pid] = time.monotonic() + rng.uniform(0, LONGEST_LIFE_S)
        for pid in [pid for pid, at_s in deaths.items() if at_s <= time.monotonic()]:
            del deaths[pid]
            os.kill(pid, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, "a client ended by itself"
        time.sleep(0.002)
    print(json.dumps(struct.unpack(f"{count}i", answered)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
