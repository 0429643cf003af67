"""`diptych audit`: verifies the records against their checkpoints, exports and searches them."""
