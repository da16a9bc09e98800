"""The calls and tries of chatsdk as OpenTelemetry spans, with trace context, and its figures as metrics.

Installed, it is at work: chatsdk finds it by its entry point, and spans and metrics go where the application's global
providers send them. Without an OpenTelemetry SDK nothing happens.

opentelemetry is imported when the first message or call is made, not before.
"""

from .plugin import OpenTelemetry, plugin

__all__ = ["OpenTelemetry", "plugin"]
__version__ = "0.1.0"
