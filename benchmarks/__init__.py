"""`make bench`: ratios measured in one run on one machine, written to results/bench.json and printed as a table."""
