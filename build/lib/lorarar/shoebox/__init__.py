"""The shoebox: a drawn world and miniatures of SDXL, CLIP and the judges trained on it."""
