"""Sagas: what hears events, sends commands, waits, and undoes what was half done."""
