"""A projection's build in Redis: its name, its checkpoints, and the beginning of a new one.

How it works. All keys of a generation belong to one build, whose name is `<incarnation>/<build id>`. Every
write compares the name first, so a projector that was frozen while another build began changes nothing.
`begin_build` refuses a generation that was pruned. Else it gives the new build a name that ends in CLEARING,
which no write matches; clears the keys of the previous build page by page, each page under the same
comparison; and then opens it under its final name with all checkpoints at the start of the stream. Any
projector may begin, help or finish.
"""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from contracts import streams
from contracts.view_layout import GENERATION, View
from projector.lua import read_script
from projector.ports import Advances, Build, BuildSuperseded

pack = msgspec.msgpack.Encoder().encode

SCAN_PAGE = 1_000
CLEARING = "/clearing"
"""The suffix of a build's name until the keys of the previous build are deleted."""


class RedisBuild:
    """The build of one generation. Writes take effect only while the build that was last read is current.

    Args:
        redis: the connection.
        view: the view, in the generation.
        code: the version of the projection's code.
    """

    def __init__(self, redis: Redis, view: View, code: str = "") -> None:
        self._redis = redis
        self._view = view
        self._code = code
        self._name = ""
        self._read_script = redis.register_script(read_script("types", "read_build"))
        self._begin_script = redis.register_script(read_script("types", "begin_build"))
        self._clear_script = redis.register_script(read_script("types", "clear_keys"))
        self._open_script = redis.register_script(read_script("types", "open_build"))
        self._advance_script = redis.register_script(read_script("types", "checkpoints", "advance"))

    async def read_build(self) -> Build | None:
        """Read and return the build; None if a new one has to begin."""
        keys = [self._view.build, self._view.checkpoints, self._view.as_of]
        name, flat, flat_times = await _call(self._read_script, keys)
        self._name = (name or b"").decode(errors="replace")
        pairs = zip(flat[::2], flat[1::2], strict=True)
        # A checkpoint under another name, or with other bytes than text, counts as missing.
        checkpoints = {int(k): v.decode() for k, v in pairs if k.isdigit() and v.isascii()}
        # A build has no checkpoints while the keys of the previous build are cleared.
        if not self._name or len(checkpoints) < streams.PARTITIONS:
            return None
        times = zip(flat_times[::2], flat_times[1::2], strict=True)
        as_of = {int(k): int(v) for k, v in times if k.isdigit() and v.isdigit()}
        return Build(self._name.partition("/")[0], checkpoints, as_of)

    async def begin_build(self, incarnation: str, epoch: str) -> None:
        """Clear the projection and begin a new build, unless another projector has begun one meanwhile."""
        view = self._view
        if not (self._name.startswith(f"{incarnation}/") and self._name.endswith(CLEARING)):
            keys = [*view.state_keys, view.serving, view.generations]
            new_name = f"{incarnation}/{uuid4()}{CLEARING}"
            names = [self._name, new_name, view.generation, GENERATION]
            self._check_current(await _call(self._begin_script, keys, names))
            self._name = new_name
        try:
            await self._clear()
            final_name, start = self._name.removesuffix(CLEARING), f"{epoch}/0"
            arguments = [self._name, final_name, start, streams.PARTITIONS, self._code]
            keys = [view.build, view.checkpoints, view.code]
            self._check_current(await _call(self._open_script, keys, arguments))
        except BuildSuperseded:
            pass  # another projector was faster; the caller reads its build next

    async def advance(self, advances: Advances, as_of: Mapping[int, int]) -> None:
        """Advance checkpoints, in all of the partitions or in none."""
        arguments = self._build_advance_arguments(advances, as_of)
        self._check_current(await _call(self._advance_script, self._checkpoint_keys, arguments))

    @property
    def _checkpoint_keys(self) -> list[str]:
        """The keys of `checkpoints.lua`."""
        return [self._view.build, self._view.checkpoints, self._view.as_of, self._view.ready]

    def _build_advance_arguments(self, advances: Advances, as_of: Mapping[int, int]) -> list[Any]:
        rows = [
            (str(partition), old, new, str(as_of.get(partition, "")))
            for partition, (old, new) in advances.items()
        ]
        return [self._name, self._name.partition("/")[0], streams.PARTITIONS, pack(rows)]

    async def _clear(self) -> None:
        for pattern in self._view.patterns:
            async for page in self._scan(pattern):
                self._check_current(await _call(self._clear_script, [self._view.build, *page], [self._name]))

    async def _scan(self, pattern: str) -> Any:
        cursor = -1
        while cursor != 0:
            cursor, page = await self._redis.scan(max(cursor, 0), match=pattern, count=SCAN_PAGE)
            if page:
                yield page

    def _check_current(self, reply: Any) -> Any:
        """Return a script's reply; raise if it reports another build or checkpoint."""
        if reply == -1:
            raise BuildSuperseded(self._name)
        return reply


async def _call(script: AsyncScript, keys: Any, args: Any = ()) -> Any:
    return await script(keys=keys, args=args)
