"""What answers: read surfaces over the catalog.

A surface is pure (request and catalog to bytes, or to a wait); `http` owns sockets.
"""
