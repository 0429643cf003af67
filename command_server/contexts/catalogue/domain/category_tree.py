"""The category tree: one aggregate, so that a move sees the whole tree and no two moves make a cycle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from command_server.contexts.catalogue.domain.messages import (
    AddCategory,
    CategoryAdded,
    CategoryMoved,
    CategoryRenamed,
    MoveCategory,
    RenameCategory,
)
from command_server.kernel.decider import (
    Aggregate,
    AlreadyExists,
    Decider,
    NotFound,
    Rejected,
    members,
)
from command_server.kernel.field_rules import check_fields
from command_server.kernel.texts import clean_text

MAX_CATEGORIES = 1_000
"""Maximum number of categories. The tree's state and view grow with them."""

Command = AddCategory | RenameCategory | MoveCategory
Event = CategoryAdded | CategoryRenamed | CategoryMoved


@dataclass(frozen=True, slots=True)
class Category:
    """A category below another one, or at the top."""

    category_id: str
    parent_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CategoryTree:
    """All categories, in the order in which they were added."""

    categories: tuple[Category, ...] = ()

    def find(self, category_id: str) -> Category | None:
        return next((each for each in self.categories if each.category_id == category_id), None)

    def get(self, category_id: str) -> Category:
        """Return a category.

        Raises:
            NotFound: `CATEGORY_NOT_FOUND`.
        """
        if category := self.find(category_id):
            return category
        raise NotFound("CATEGORY_NOT_FOUND", category_id=category_id)

    def list_path(self, category_id: str) -> Iterator[str]:
        """Yield the ids of a category and of all above it."""
        parents = {each.category_id: each.parent_id for each in self.categories}
        while category_id:
            yield category_id
            category_id = parents[category_id]

    def with_changed(self, category_id: str, **values: str) -> "CategoryTree":
        return CategoryTree(
            tuple(
                replace(each, **values) if each.category_id == category_id else each
                for each in self.categories
            )
        )


def decide(command: Command, tree: CategoryTree, now: datetime) -> Sequence[Event]:
    """Return the events that follow from a command, none if it changes nothing.

    Raises:
        Rejected: a rule does not allow the command.
    """
    check_fields(command)
    id_ = command.category_id
    match command:
        case AddCategory():
            return add(command, tree, now)
        case RenameCategory():
            category, name = tree.get(id_), clean_text("name", command.name, is_required=True)
            return [] if name == category.name else [CategoryRenamed(id_, name, renamed_at=now)]
        case MoveCategory(_, parent_id):
            if parent_id == tree.get(id_).parent_id:
                return []
            if parent_id:
                tree.get(parent_id)
            if id_ in tree.list_path(parent_id):
                raise Rejected("CATEGORY_CYCLE", category_id=id_, parent_id=parent_id)
            return [CategoryMoved(id_, parent_id, moved_at=now)]


def add(command: AddCategory, tree: CategoryTree, now: datetime) -> Sequence[Event]:
    """Return the event of a new category, or none if the tree has the same one."""
    name = clean_text("name", command.name, is_required=True)
    if existing := tree.find(command.category_id):
        if (existing.parent_id, existing.name) == (command.parent_id, name):
            return []
        raise AlreadyExists("CATEGORY_EXISTS", category_id=command.category_id)
    if command.parent_id:
        tree.get(command.parent_id)
    if len(tree.categories) >= MAX_CATEGORIES:
        raise Rejected("CATEGORY_TOO_MANY", most=MAX_CATEGORIES)
    return [CategoryAdded(command.category_id, command.parent_id, name, added_at=now)]


def evolve(tree: CategoryTree, event: Event) -> CategoryTree:
    match event:
        case CategoryAdded():
            return CategoryTree((*tree.categories, Category(event.category_id, event.parent_id, event.name)))
        case CategoryRenamed():
            return tree.with_changed(event.category_id, name=event.name)
        case CategoryMoved():
            return tree.with_changed(event.category_id, parent_id=event.parent_id)


CATEGORY_TREE = Aggregate("catalogue.category_tree", CategoryTree(), evolve, members(Event))
STREAM = CATEGORY_TREE.stream("tree")
"""The only stream of its type."""
DECIDER = Decider(
    members(Command),
    (CATEGORY_TREE,),
    "category_id",
    lambda _: (STREAM,),
    lambda command, states, now: {STREAM: decide(command, states[STREAM], now)},
)
