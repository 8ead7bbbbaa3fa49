"""Another product on the port that GlitchTip has by default: it answers everything and keeps what it was sent."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = "/var/log/decoy.log"
PORT = 8080


class Handler(BaseHTTPRequestHandler):
    """Writes the request line and says whether it carried a credential."""

    def parse_request(self) -> bool:
        """Keep each request, whatever its method; never the credential itself."""
        well = super().parse_request()
        if well:
            named = "with" if self.headers.get("Authorization") or self.headers.get("Cookie") else "without"
            with open(LOG, "a", encoding="utf-8") as log:
                log.write(f"{self.requestline} ({named} credentials)\n")
        return well

    def do_GET(self) -> None:
        """Answer like a product that knows nothing of GlitchTip."""
        body = b"another product\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
