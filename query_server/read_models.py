"""The read models of a process: of each projection that of the generation that serves.

How it works. Each call takes the read model that is there when it begins. The reads of the call tell if
another generation serves (`GenerationSwitched`), and so do the samples of staleness; `follow` then puts the
read model of that one in the place of the former. Calls that still use the former keep it, and the last of
them drops it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.freshness import Freshness
from query_server.redis_client import RedisClient
from query_server.staleness import Staleness
from query_server.view_reader import GenerationSwitched, ViewReader
from runtime.grpc.request_tokens import RequestTokens
from runtime.grpc.waits import Waits
from runtime.process import logs

log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReadModel:
    """The views of one generation, the bound on their age, and the reads that wait for them."""

    views: ViewReader
    staleness: Staleness
    freshness: Freshness

    @classmethod
    def of(
        cls,
        redis: RedisClient,
        notifications: ChangeNotifications,
        tokens: RequestTokens,
        waits: Waits,
        view: View,
    ) -> "ReadModel":
        views = ViewReader(redis, view)
        return cls(views, Staleness(redis, view), Freshness(views, tokens, waits, notifications))


class ServingReadModel:
    """The read model of a projection in the generation that serves, as far as is known.

    Args:
        view: the views, in the generation to begin with.
        make: returns the read model of a generation of them.
    """

    def __init__(self, view: View, make: Callable[[View], ReadModel]) -> None:
        self._make = make
        self.current = make(view)

    @classmethod
    def of(
        cls,
        view: View,
        redis: RedisClient,
        notifications: ChangeNotifications,
        tokens: RequestTokens,
        waits: Waits,
    ) -> "ServingReadModel":
        return cls(view, partial(ReadModel.of, redis, notifications, tokens, waits))

    @property
    def staleness(self) -> Staleness:
        return self.current.staleness

    def follow(self, generation: str) -> None:
        """Take note of the generation that serves."""
        view = self.current.views.view
        if view.generation == generation:  # another call has taken note of it
            return
        log.info("Serving another generation", projection=view.projection, generation=generation)
        self.current = self._make(view.at(generation))


def follow(models: Iterable[ServingReadModel], switch: GenerationSwitched) -> None:
    """Take note of the generation that serves, in the read model of that projection."""
    for model in models:
        if model.current.views.view.projection == switch.projection:
            model.follow(switch.generation)
