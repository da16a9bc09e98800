"""The built-in plugins. Each is a module like anybody's plugin: it comes in by `chatsdk.plugin` and knows no other."""
