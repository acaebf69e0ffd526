"""From typed Python to machine code: front end, decoder generator, interpreter tier, blobs, their cache."""
