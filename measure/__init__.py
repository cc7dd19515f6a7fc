"""Small pure functions that measure: counting losses, metrics, scores, statistics."""
