"""The steps of the proof, each run in a process of its own: `measure(context)` adds rows until it is done."""
