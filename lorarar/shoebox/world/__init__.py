"""The drawn world: subjects × styles as images, with captions and with the truth about each."""
