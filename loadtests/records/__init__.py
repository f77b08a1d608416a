"""What is measured, as plain data: a probe's columns and its row in the result."""
