"""A program with a page for people, whose health is an HTTP status."""

from devstack.servers.server import Server, read_first_line


class WebServer(Server):
    """A server that answers HTTP on this machine."""

    health_path: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def is_ready(self) -> bool:
        request = f"GET {self.health_path} HTTP/1.0\r\n\r\n"
        return b" 200 " in await read_first_line(self.port, request.encode())
