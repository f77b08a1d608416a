"""A catalogue of tracks that is searched."""
