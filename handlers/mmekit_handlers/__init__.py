"""Runtimes for models: one file a framework, named by a string and never imported by the server.

``base`` is the contract, ``transformer`` the request cycle, ``functions`` the user's own
``model_fn`` and its siblings, ``codecs`` turns content types into arrays and back.
"""
