"""Programs that run in the environment of another package.

Each imports torch, numpy and that one package, nothing of ghostify, and is run by its path:
``python litert_worker.py REQUEST.json``. The request says ``do`` ("convert", "run" or
"versions"), the paths to read and write, and ``result``, the JSON file for the answer.
"""
