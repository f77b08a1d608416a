"""`fathom check`: rules about configurations, artefacts and engines."""
