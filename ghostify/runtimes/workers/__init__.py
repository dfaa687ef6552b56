"""The program that runs networks in the environment of another package.

It imports numpy and that one package, nothing of ghostify, and is run by its path. Requests
come as lines of JSON on standard input, answers go as lines of JSON to standard output, and
arrays lie in ``.npy`` files.
"""
