"""Queries read the generation of their reader: none makes keys of its module's views of the first one."""

from collections.abc import Iterator
from importlib import import_module
from types import CodeType, FunctionType, ModuleType

import pytest

from contracts.view_layout import View
from tests.support.harness.contexts import MANIFESTS
from tests.support.ledger import queries as ledger

MODULES = [*(import_module(manifest.queries) for manifest in MANIFESTS if manifest.queries), ledger]


def list_functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in vars(module).values():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield value


def list_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from list_names(constant)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_query_makes_keys_of_a_constant(module: ModuleType) -> None:
    constants = {name for name, value in vars(module).items() if isinstance(value, View)}
    assert constants
    uses = {
        function.__name__: used
        for function in list_functions(module)
        if (used := constants & {*list_names(function.__code__)})
    }
    assert not uses, "build keys by the `view` of the reader or watch"
