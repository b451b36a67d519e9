"""A DataFrame in every form that pandas writes: python pandas_tables.py URL ROWS; prints the answers by form."""

import json
import sys
import urllib.request

import pandas as pd


def post(path: str, body: str, media: str = "application/json") -> object:
    request = urllib.request.Request(sys.argv[1] + path, body.encode(), {"Content-Type": media})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


frame = pd.DataFrame(json.loads(sys.argv[2]))
answers = {form: post("/score", frame.to_json(orient=form)) for form in ("records", "split", "columns")}
answers["turned"] = post("/score", frame[frame.columns[::-1]].to_json(orient="records"))
answers["csv"] = post("/score", frame.to_csv(), "text/csv")
answers["csv without index"] = post("/score", frame.to_csv(index=False), "text/csv")
print(json.dumps(answers))
