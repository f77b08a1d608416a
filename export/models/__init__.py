"""One recipe per model: where it comes from, an example input, how its accuracy is measured."""
