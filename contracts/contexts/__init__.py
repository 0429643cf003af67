"""The manifests of this repository's contexts, one module each."""
