"""Serve a SQLite file by Optuna's gRPC proxy: ``grpc_proxy.py FILE PORT``."""

import sys
import warnings

import optuna

from ghostify.searches.study.storage import open_storage

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    storage = open_storage(f"sqlite:///{sys.argv[1]}")
    optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=int(sys.argv[2]))
