"""Protocol machines and codecs: bytes and values, never a socket, a clock or a thread."""
