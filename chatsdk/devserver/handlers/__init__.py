"""What each operation does: one module per subject, each with its rows of the route table in `OPERATIONS`."""
