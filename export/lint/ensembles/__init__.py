"""Rules about ensembles: their steps, the flow of tensors, what is in flight."""
