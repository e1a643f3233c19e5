"""A local page to play with: teacher, start and student side by side on the same noise."""
