"""The only sockets of the Python side: HTTP, TLS contexts, the plane's event pump."""
