"""Work in threads a few items ahead of whoever takes the results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Budget:
    """An amount of something that threads share, such as memory."""

    def __init__(self, total: int) -> None:
        self._total = self._left = total
        self._changed = Condition()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Hold an amount for the block, waiting until it is there; at most all there is."""
        amount = min(amount, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()


def ahead(
    function: Callable[[In], Out],
    items: Iterable[In],
    workers: int,
    window: int,
    cost: Callable[[In], int] = lambda _: 0,
    budget: int = 0,
) -> Iterator[Out]:
    """Map in threads, in order, a bounded way ahead of the consumer.

    Args:
        function: what is done to each item.
        items: taken one by one, as there is room.
        workers: threads.
        window: results that may be ahead.
        cost: of an item, until its result is taken.
        budget: what the results ahead may cost together. An item that costs more is alone.
    """
    waiting: deque[tuple[Future[Out], int]] = deque()
    spent = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                price = cost(item)
                while waiting and (len(waiting) > window or spent + price > budget):
                    future, paid = waiting.popleft()
                    yield future.result()
                    spent -= paid
                waiting.append((pool.submit(function, item), price))
                spent += price
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
