"""Small pure functions that measure: losses by counting, metrics, scores, statistics."""
