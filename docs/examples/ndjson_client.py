import json
import time

import httpx


def rows(url, after=0):
    while True:
        begin = after
        try:
            with httpx.stream("GET", url, params={"after": after}) as response:
                response.raise_for_status()
                for line in response.iter_lines():
                    row = json.loads(line)
                    after = row["id"]
                    yield row
            return  # the stream had its end: these were all
        except (httpx.RemoteProtocolError, httpx.ReadError, json.JSONDecodeError):
            if after == begin:
                raise  # no row has come since: it may be cut at this row each time
            time.sleep(1)  # it was cut, perhaps in a line: go on after the last whole row
