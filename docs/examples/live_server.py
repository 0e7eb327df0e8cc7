import json
from urllib.request import urlopen

from channels.testing import ChannelsLiveServerTestCase

from realtime import publish
from realtime.server.server_process import ServerProcess


class RingTests(ChannelsLiveServerTestCase):
    ProtocolServerProcess = ServerProcess

    def test_who_listens_hears_it(self):
        with urlopen(f"{self.live_server_url}/topics/public.bell/events", timeout=30) as stream:
            while not stream.readline().startswith(b"id: "):
                pass
            publish("public.bell", {"by": "the test"})  # in another process than the server's
            while not (line := stream.readline()).startswith(b"data: "):
                pass
            assert json.loads(line[6:]) == {"by": "the test"}
