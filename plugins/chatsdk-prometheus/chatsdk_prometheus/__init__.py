"""The figures of chatsdk as Prometheus metrics.

Installed, it is at work: chatsdk finds it by its entry point, and the metrics stand in `prometheus_client.REGISTRY`,
where an application's own `/metrics` shows them. `plugin.collector` can be registered elsewhere too:

    from chatsdk_prometheus import plugin

    my_registry.register(plugin.collector)      # with `[plugins.prometheus] register = false`, only there

prometheus_client is imported when the first call is made, not before.
"""

from .plugin import Prometheus, plugin

__all__ = ["Prometheus", "plugin"]
__version__ = "0.1.0"
