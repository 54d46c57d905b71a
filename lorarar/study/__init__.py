"""The experiment: what is compared, judged, counted and recorded."""
