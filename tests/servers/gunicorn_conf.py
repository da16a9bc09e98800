"""gunicorn's configuration where workers close their client when they end."""


def worker_exit(server: object, worker: object) -> None:
    """In a worker, before it ends."""
    from tests.servers.app import close

    close()
