"""What is published: the manifest, and the atomic change of a model folder."""
