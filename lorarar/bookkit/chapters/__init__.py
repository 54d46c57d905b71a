"""One module for each chapter: its numbers, statements, claims, and the figures only it has."""
