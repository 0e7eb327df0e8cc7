"""Answers of language models, streamed: on the request, or on the server and resumable.

`responses` streams an answer to whoever asked, `generation` lets it survive reloads; `providers`
chooses who answers. Nothing is imported here: an SDK takes a second or two to load.
"""
