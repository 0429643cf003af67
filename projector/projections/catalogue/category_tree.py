"""The view of the category tree."""

from diptych.catalogue.v1 import events_pb2 as events
from diptych.catalogue.v1 import types_pb2 as views

from contracts.events.catalogue import EVENTS
from contracts.view_layout import View
from projector.projection import Projection

VIEW = View.of(views.CategoryTree)
CATEGORY_TREES = Projection[views.CategoryTree](VIEW, events=EVENTS)


@CATEGORY_TREES.on(events.CategoryAdded)
def added(tree: views.CategoryTree, event: events.CategoryAdded) -> None:
    tree.categories.add(category_id=event.category_id, parent_id=event.parent_id, name=event.name)


@CATEGORY_TREES.on(events.CategoryRenamed)
def renamed(tree: views.CategoryTree, event: events.CategoryRenamed) -> None:
    _get_category(tree, event.category_id).name = event.name


@CATEGORY_TREES.on(events.CategoryMoved)
def moved(tree: views.CategoryTree, event: events.CategoryMoved) -> None:
    _get_category(tree, event.category_id).parent_id = event.parent_id


def _get_category(tree: views.CategoryTree, category_id: str) -> views.Category:
    """Return a category.

    Raises:
        LookupError: there is none with this id, so the event cannot be applied.
    """
    for category in tree.categories:
        if category.category_id == category_id:
            return category
    raise LookupError(f"the tree has no category {category_id}")
