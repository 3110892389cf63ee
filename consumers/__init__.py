"""How events come in: sources, codecs, columns, windows."""
