import json

import httpx


def rows(url, after=0):
    while True:
        try:
            with httpx.stream("GET", url, params={"after": after}) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    row = json.loads(line)
                    after = row["id"]
                    yield row
            return  # the stream had its end: these were all
        except (httpx.RemoteProtocolError, httpx.ReadError, json.JSONDecodeError):
            continue  # it was cut, perhaps in a line: go on after the last whole row
