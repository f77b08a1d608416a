"""config.pbtxt: parsed with positions, rewritten, and compared with the graph."""
