"""Converting scikit-learn estimators: columns, the graph, converters of boosted trees."""
