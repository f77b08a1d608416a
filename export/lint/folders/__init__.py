"""Rules about a model folder: its versions, files, engines, and configurations beside one another."""
