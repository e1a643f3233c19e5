"""One file a metric, or a family of metrics that share their features."""
