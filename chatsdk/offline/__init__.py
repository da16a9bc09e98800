"""What can be answered without the server."""
