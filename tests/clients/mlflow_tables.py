"""MLflow's own client of scoring servers: python mlflow_tables.py URL ROWS; prints its predictions."""

import json
import sys
from urllib.parse import urlsplit

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

url = urlsplit(sys.argv[1])
client = ScoringServerClient(str(url.hostname), int(url.port or 80))
client.wait_server_ready()
answer = client.invoke(pd.DataFrame(json.loads(sys.argv[2])))
print(json.dumps(answer.get_predictions().to_dict(orient="records")))
