"""The proof on a GPU: everything that can be measured in minutes, without network, into one JSON and docs/gpu.md."""
