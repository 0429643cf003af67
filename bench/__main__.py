"""`make bench`: GetOrder and PlaceOrder as shares of a bare gRPC echo, in one run of about a minute.

With `--feed`, relay and projector work beside them.
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import report
from bench.load import INSTALL, find_ghz
from bench.rounds import Bench, Void
from operations.stacks import throwaway
from runtime.errors import StartError


async def main(ghz: str, feed: bool) -> None:
    """Measure, print the table and keep the result.

    Raises:
        Void, StartError: there is no result.
    """
    with TemporaryDirectory(prefix="diptych-bench-") as name:
        folder = Path(name)
        async with throwaway(folder / "stack", durable=True) as stack:
            compared = await Bench(stack, ghz, folder, feed=feed).run()
    report.show(compared, feed)
    print(f"kept in {report.keep(compared, feed)}")


if __name__ == "__main__":
    ghz = find_ghz()
    if ghz is None:
        sys.exit(INSTALL)
    try:
        asyncio.run(main(ghz, feed="--feed" in sys.argv[1:]))
    except (Void, StartError) as error:
        sys.exit(f"bench: {error}")
