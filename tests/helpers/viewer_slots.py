"""What the threads of a viewer's server wait for, as events of a test."""

import contextlib
import queue

from wkdask.viewer.requests import HungUpError


def recorded_slots(server):
    """Return two queues: one gets something for each chunk that is to be made, one for each that is given up."""
    taken, asked, given_up = server.slots.taken, queue.Queue(), queue.Queue()

    @contextlib.contextmanager
    def recorded():
        asked.put(1)
        try:
            with taken():
                yield
        except HungUpError:
            given_up.put(1)
            raise

    server.slots.taken = recorded
    return asked, given_up
