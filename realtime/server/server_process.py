"""A server in a child process of a test, in the place of Daphne's."""

import sys
import traceback
from typing import Final

from daphne.endpoints import build_endpoint_description_strings
from daphne.testing import DaphneProcess

WITH_REACTOR: Final = ("twisted.internet.reactor", "daphne.server", "realtime.server.server")


class ServerProcess(DaphneProcess):
    """Daphne's own, with this server: `ProtocolServerProcess` of a ChannelsLiveServerTestCase."""

    def run(self) -> None:
        """Serve; called in the child."""
        # A reactor that came with the fork has the parent's event loop.
        for name in WITH_REACTOR:
            sys.modules.pop(name, None)
        from realtime.server.server import Server

        try:
            server: Server = Server(
                self.get_application(),
                endpoints=build_endpoint_description_strings(host=self.host, port=self.port.value),
                signal_handlers=False,
                ready_callable=lambda: self._tell(server.listening_addresses[0][1]),
                **self.kwargs,
            )
            self.server = server  # of Daphne's class too: what its tests look at
            if self.setup is not None:
                self.setup()
            try:
                server.run()
            finally:
                if self.teardown is not None:
                    self.teardown()
        except BaseException as error:
            self.errors.put((error, traceback.format_exc()))

    def _tell(self, port: int) -> None:
        self.port.value = port
        self.ready.set()
