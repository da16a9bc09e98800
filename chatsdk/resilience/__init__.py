"""What several parts share: circuits, metrics, the retry budget, deadlines, the emitter of events, the real clock."""
