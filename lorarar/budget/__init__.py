"""Budgets, counted: the peak memory and the operations of a training step at a public model's size."""

from lorarar.budget.table import beside, count, decoding, main, name_of, rows
from lorarar.budget.tracking import Count, Tracker, counting, faked

__all__ = ["Count", "Tracker", "beside", "count", "counting", "decoding", "faked", "main", "name_of", "rows"]
