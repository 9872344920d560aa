"""One association that stores slices as fast as it is answered: HOST PORT CALLED FIRST COUNT; begins with a line."""

from __future__ import annotations

import sys
import time

from tests.storing import Slices, StoreSender


def main(host: str, port: int, called: str, first: int, count: int) -> None:
    """Associate, say so, wait for a line, send, and print the seconds from the first byte to the last answer."""
    slices = Slices()
    data, at = slices.changeable()
    uids = [slices.uid(number) for number in range(first, first + count)]
    with StoreSender(port, host=host) as sender:
        sender.associate(called=called)
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        statuses = []
        for uid in uids:  # one data set for all: making them costs no time here, and keeping them no memory
            data[at : at + len(uid)] = uid.encode()
            statuses.append(sender.store(uid, memoryview(data)))
        seconds = time.monotonic() - began
        sender.release()
    failed = [status for status in statuses if status]
    print(f"{seconds} {len(failed)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
