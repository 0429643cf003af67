"""The sagas of this repository's contexts, in the folders and modules named for them."""
