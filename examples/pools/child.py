# stint work orders -- python3 examples/pools/child.py
import json, os

pool_in = open(int(os.environ["STINT_IN"]), encoding="utf-8")
pool_out = open(int(os.environ["STINT_OUT"]), "w", encoding="utf-8", buffering=1)
say = lambda **line: print(json.dumps(line), file=pool_out)

for line in pool_in:
    work = json.loads(line)
    if work["type"] == "start":
        say(type="ready")  # what has to be loaded is loaded
    elif work["type"] == "stop":
        break
    elif work["type"] == "work":
        try:
            say(type="done", id=work["id"], body="Hello, " + work["body"])
        except Exception as e:
            say(type="failed", id=work["id"], message=repr(e))
