"""Answers of language models, streamed: on the request, or on the server and resumable.

`answer_stream` streams an answer to its client, `generation` lets it survive reloads; `providers`
finds the provider. Nothing is imported here: an SDK takes a second or two to load.
"""
