"""What users need to test their own code: a pytest plugin, the development server as a fixture, a clock to move by
hand, and an outbox in memory. Nothing here is imported by the rest of the package."""
