"""The event log on Redis Streams: a stream for each topic, written and read by scripts."""
