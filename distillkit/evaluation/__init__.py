"""Judging a student: sampling, the rows that are compared, metrics, picture grids."""
