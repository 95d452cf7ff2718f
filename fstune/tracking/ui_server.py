"""The process that `fstune ui` starts: MLflow's application in one uvicorn worker.

`mlflow server` imports MLflow in a process of its own, prepares the store, and imports all of it
again in the worker; this is the worker alone, which finds the store by the same variables.

    python -m fstune.tracking.ui_server STORE_URI ARTIFACTS HOST PORT
"""

import os
import sys


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    store_uri, artifacts, host, port = sys.argv[1:]
    import uvicorn
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store_uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: store_uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    uvicorn.run("mlflow.server.fastapi_app:app", host=host, port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
