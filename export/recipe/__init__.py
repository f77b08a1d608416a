"""What a recipe is, and how a station's answers are measured."""
