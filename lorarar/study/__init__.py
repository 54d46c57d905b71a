"""The experiment: what is compared with what, by which measure, and what is kept of it."""
