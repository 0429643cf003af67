"""The projections of the catalogue, one module each."""

from projector.projections.catalogue import category_tree, product

PROJECTIONS = (product.PRODUCTS, category_tree.CATEGORY_TREES)
