"""Measurements of the project's own claims: `make bench` renews benchmarks/results.json and docs/benchmarks.md."""
