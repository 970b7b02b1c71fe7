"""Both halves of a processor at work at once: on batches of their own, or one on bodies and the other on heads.

A product split over threads waits for its slowest thread a hundred thousand times a pass. Two halves that each do whole
pieces of work wait for each other once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

MOST_WAITING = 2
"""Pieces that wait for the other half where each holds hidden states."""

Work = Callable[[], torch.Tensor]


class Beside:
    """Pieces of work of which another thread does as many as it can while the caller does something else.

    Parameters
    ----------
    pool : ThreadPoolExecutor or None
        The other thread; without one the caller does every piece when it is handed over.
    most_waiting : int
        Pieces that wait for the other thread; past that the caller does the next one itself.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, most_waiting: int) -> None:
        self._pool, self._most_waiting = pool, most_waiting
        self._pieces: list[_Piece] = []

    def put(self, work: Work) -> None:
        """Hand over a piece; it is done here and now where enough are waiting. What it holds is let go once it is done."""
        piece = _Piece(work)
        if self._pool is not None and self._has_room():
            piece.future = self._pool.submit(piece.do)
        else:
            piece.future.set_result(piece.do())
        self._pieces.append(piece)

    def _has_room(self) -> bool:
        most = self._most_waiting
        return len(self._pieces) <= most or sum(not piece.future.done() for piece in self._pieces) <= most

    def results(self) -> list[torch.Tensor]:
        """Return the result of every piece in the order they were put; those not begun are done by whoever is free."""
        for piece in self._pieces:
            if piece.future.cancel():
                piece.future = Future()
                piece.future.set_result(piece.do())
        return [piece.future.result() for piece in self._pieces]


class _Piece:
    """One piece of work, and what became of it."""

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self.future: Future[torch.Tensor] = Future()

    def do(self) -> torch.Tensor:
        """Do the work, once."""
        work, self._work = self._work, None
        assert work is not None
        with torch.no_grad():  # grad mode is a thread's own
            return work()


@contextmanager
def beside(wanted: bool, most_waiting: int = MOST_WAITING) -> Iterator[Beside]:
    """Give half of PyTorch's threads to another thread meanwhile, where that is wanted and there is an even number.

    Both halves are equal, so that a piece comes out the same to the last bit whoever does it.

    Notes
    -----
    ``torch.set_num_threads`` counts for the thread that calls it and for threads that use PyTorch for the first time
    afterwards. Other threads at work keep their number; one that begins during a pass keeps half of it. Autograd's work
    on a CPU is done by the thread that calls ``backward``.
    """
    threads = torch.get_num_threads()
    if not wanted or threads % 2:
        yield Beside(None, most_waiting)
        return
    torch.set_num_threads(threads // 2)
    pool = ThreadPoolExecutor(1, "sightline-head", torch.set_num_threads, (threads // 2,))
    try:
        yield Beside(pool, most_waiting)
    finally:
        try:
            pool.shutdown(cancel_futures=True)  # waits for the piece at hand
        finally:
            torch.set_num_threads(threads)  # after the other thread's own call, which new threads would inherit
