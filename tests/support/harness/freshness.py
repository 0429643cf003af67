"""Fresh reads without a query server: nothing notifies, so waiting calls look again by themselves."""

from typing import Any

from contracts.view_layout import View
from query_server.change_notifications import ChangeNotifications
from query_server.freshness import Freshness
from query_server.read_models import ServingReadModel
from query_server.redis_client import RedisClient
from query_server.view_reader import ViewReader
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.waits import Waits
from tests.support.harness.keys import TOKENS

_NO_REDIS: Any = None
NO_NOTIFICATIONS = ChangeNotifications(_NO_REDIS, _NO_REDIS, ())

NO_LIMIT = CallLimit("TOO_MANY_WATCHES", "watches", 1_000_000, 1_000_000)


def make_waits(max_wait: float = 5.0, per_caller: int = 1_000, in_all: int = 1_000) -> Waits:
    return Waits(max_wait, CallLimit("TOO_MANY_WAITS", "waiting calls", per_caller, in_all))


def make_freshness(
    views: ViewReader, waits: Waits | None = None, notifications: ChangeNotifications = NO_NOTIFICATIONS
) -> Freshness:
    return Freshness(views, TOKENS, waits or make_waits(), notifications)


def make_serving(
    view: View,
    redis: RedisClient,
    notifications: ChangeNotifications = NO_NOTIFICATIONS,
    max_wait: float = 5.0,
) -> ServingReadModel:
    return ServingReadModel.of(view, redis, notifications, TOKENS, make_waits(max_wait))
