"""What a long piece of work tells about its progress, and the bar that shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], object]

Progress = Callable[[int, int], AbstractContextManager[Advance]]
"""Called with the total and how many are done already; gives a function that is called with
each further number done."""


@contextmanager
def silent(total: int, done: int = 0) -> Iterator[Advance]:
    """Progress that nobody sees."""
    del total, done
    yield lambda advance: None


def bar(description: str, unit: str) -> Progress:
    """A progress bar with rate and time left, silent where errors do not go to a terminal."""

    @contextmanager
    def show(total: int, done: int = 0) -> Iterator[Advance]:
        from tqdm import tqdm

        with tqdm(
            desc=description, unit=f" {unit}", total=total, initial=done, disable=None
        ) as shown:
            yield shown.update

    return show
