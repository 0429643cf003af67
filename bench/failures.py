"""Failed groups: they are reported, and the bench goes on with the others."""

from collections.abc import Awaitable, Callable
from time import monotonic

from bench.comparison import Results


class Failures(list[str]):
    """The groups and subjects that failed, with the reasons."""

    def add(self, name: str, error: Exception) -> None:
        """Keep a failure, and print it at once."""
        self.append(f"{name}: {type(error).__name__}: {error}")
        print(f"FAILED: {self[-1]}", flush=True)

    async def collect(self, name: str, measure: Callable[[], Awaitable[Results]]) -> Results:
        """Measure a group; a failure is kept, and leaves no results."""
        print(name, flush=True)
        start = monotonic()
        try:
            return await measure()
        except Exception as error:  # whatever a group raises, the others are measured
            self.add(name, error)
            return {}
        finally:
            print(f"  {monotonic() - start:.0f} s", flush=True)
