"""Both halves of a processor at work at once: one on the body of the next batch, the other on the head of the last ones.

A product split over threads waits for its slowest thread a hundred thousand times a pass. Where body and head take about
as long, each is better given threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

MOST_WAITING = 2
"""Pieces that wait for the other half; past that the caller does the next one itself."""

Work = Callable[[], torch.Tensor]


class Beside:
    """Pieces of work of which another thread does as many as it can while the caller does something else.

    Parameters
    ----------
    pool : ThreadPoolExecutor or None
        The other thread; without one the caller does every piece when it is handed over.
    """

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool
        self._pieces: list[tuple[Work, Future[torch.Tensor]]] = []

    def put(self, work: Work) -> None:
        """Hand over a piece; it is done here and now where enough are waiting."""
        if self._pool is not None and sum(not future.done() for _, future in self._pieces) <= MOST_WAITING:
            future = self._pool.submit(_without_gradients, work)
        else:
            future = Future()
            future.set_result(work())
        self._pieces.append((work, future))

    def results(self) -> list[torch.Tensor]:
        """Return the result of every piece in the order they were put; those not begun are done here, the last first."""
        here = {at: work() for at, (work, future) in reversed(list(enumerate(self._pieces))) if future.cancel()}
        return [here[at] if at in here else future.result() for at, (_, future) in enumerate(self._pieces)]


@contextmanager
def beside(wanted: bool) -> Iterator[Beside]:
    """Give half of PyTorch's threads to another thread meanwhile, where that is wanted and there are two."""
    threads = torch.get_num_threads()
    if not wanted or threads < 2:
        yield Beside(None)
        return
    torch.set_num_threads(threads - threads // 2)
    pool = ThreadPoolExecutor(1, "sightline-head", torch.set_num_threads, (threads // 2,))
    try:
        yield Beside(pool)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # after the other thread's own call, which new threads would inherit


def _without_gradients(work: Work) -> torch.Tensor:
    with torch.no_grad():  # grad mode is a thread's own
        return work()
