"""What an endpoint tells of itself: counters, CloudWatch, Prometheus, logs, events."""
