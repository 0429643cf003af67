"""What a release is made of, and what is known against it: `make sbom`, `make audit-deps`."""
