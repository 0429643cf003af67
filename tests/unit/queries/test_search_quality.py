"""How well searches rank, on products and judgements that were written for it."""

from collections.abc import Iterator, Sequence
from math import log2

import pytest

from query_server.contexts.catalogue.index import INDEX, list_query_words
from query_server.contexts.catalogue.search import Search
from query_server.search.folder import IndexFolder
from query_server.search.index import Change, SearchIndex, Sorting
from query_server.search.shown_documents import ShownDocuments
from tests.support.builders.judged_products import SEARCHES, Judge, make_items

ITEMS = make_items()
CUT = 10


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchIndex]:
    with IndexFolder(str(tmp_path_factory.mktemp("index")), INDEX.name) as folder:
        index = SearchIndex(INDEX, folder)
        index.open()
        index.apply(
            [
                Change(sku, product.SerializeToString(), 1, False, 1_800_000_000)
                for sku, (_, product) in ITEMS.items()
            ]
        )
        index.commit()
        yield index
        index.close()


def search(index: SearchIndex, text: str) -> Sequence[str]:
    words = list_query_words(text)
    found = Search(index, words, (), Sorting(), ShownDocuments(), CUT).run().found
    return [index.ids[each] for each in found.hashes]


def compute_ndcg(found: Sequence[str], judge: Judge) -> float:
    """Return the discounted gain of the first CUT, as a share of that of the best order."""

    def gain(grades: Sequence[int]) -> float:
        return sum(((1 << grade) - 1) / log2(rank + 2) for rank, grade in enumerate(grades[:CUT]))

    best = sorted((judge(item) for item, _ in ITEMS.values()), reverse=True)
    return gain([judge(ITEMS[sku][0]) for sku in found]) / gain(best)


def test_searches_find_what_people_want_first(index: SearchIndex) -> None:
    scores = {text: compute_ndcg(search(index, text), judge) for text, judge in SEARCHES.items()}
    for text, score in sorted(scores.items(), key=lambda each: each[1]):
        print(f"{score:.2f} {text}")
    mean = sum(scores.values()) / len(scores)
    print(f"{mean:.3f} of {len(scores)} searches over {len(ITEMS)} products")
    assert (len(scores), 300 <= len(ITEMS) <= 500) == (50, True)
    assert mean >= 0.8


def test_another_order_would_be_judged_worse(index: SearchIndex) -> None:
    """The judgement tells good orders from bad ones."""
    backwards = [compute_ndcg(search(index, text)[::-1], judge) for text, judge in SEARCHES.items()]
    by_sku = [compute_ndcg(sorted(ITEMS)[:CUT], judge) for judge in SEARCHES.values()]
    assert sum(by_sku) < 0.1 * len(SEARCHES)
    assert sum(backwards) < sum(compute_ndcg(search(index, text), judge) for text, judge in SEARCHES.items())
