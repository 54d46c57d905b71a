"""One module for each chapter: the checks of its exercises, and plausible wrong answers."""
