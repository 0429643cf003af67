"""The query server: its contexts, and how its parts are put together."""

from collections.abc import Sequence

from query_server.change_feed import Changes
from query_server.contexts import banking, inventory, ordering
from query_server.reader import Reader
from query_server.redis_address import RedisAddress
from query_server.service import QueryContext, ReadModel, query_service
from runtime.grpc import server
from runtime.process import lifecycle, workers
from runtime.process.lifecycle import Lifecycle
from runtime.process.start_error import StartError

CONTEXTS = (ordering.CONTEXT, inventory.CONTEXT, banking.CONTEXT)


async def main(life: Lifecycle, contexts: Sequence[QueryContext]) -> None:
    """Serve these contexts' queries until the process stops."""
    redis = _redis(life.settings.redis_url)
    async with Reader(redis) as reader:
        views = {query.view for context in contexts for query in context.queries.values()}
        watched = {watch.view for context in contexts for watch in context.watches.values()}
        changes = Changes(redis, reader, watched)
        life.spawn(changes.run(life.stopping), "changes")
        models = {view: ReadModel.of(view, reader) for view in views | watched}
        for model in models.values():
            life.spawn(model.staleness.run(), "staleness")
        services = [query_service(context, models, changes) for context in contexts]
        edge = server.build(
            life.settings,
            services,
            address=life.settings.query_address,
            probe=reader.ping,
            probe_address=life.settings.query_probe_address,
        )
        await edge.serve(life)


def _redis(url: str) -> RedisAddress:
    try:
        return RedisAddress(url)
    except ValueError as error:
        raise StartError(f"DIPTYCH_REDIS_URL: {error}") from error


if __name__ == "__main__":
    settings = lifecycle.settings()
    names = {context.name: context for context in CONTEXTS}
    workers.run(main, "query_server", settings, settings.query_address, names)
