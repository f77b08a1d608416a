"""An encoder-decoder that translates."""
