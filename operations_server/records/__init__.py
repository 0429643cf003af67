"""What is on record: requests and events, found by what operators know, and states of the past."""
