"""All sagas, in the folders and modules named for them."""

from typing import Any

from process_manager.saga import Saga
from process_manager.sagas import deadlines, fulfilment

SAGAS: tuple[Saga[Any], ...] = (fulfilment.FULFILMENT, deadlines.RESERVATIONS, deadlines.HOLDS)
