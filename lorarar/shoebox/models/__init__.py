"""The miniatures: small models of the drawn world, of the same classes as the large ones."""
