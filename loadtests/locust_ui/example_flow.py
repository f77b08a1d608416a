"""An example of a scripted flow: sessions that search, look, and search again with what they found.

locust -f loadtests/locust_ui/example_flow.py --host localhost:8001 --headless -u 20 -t 30s
"""

# isort: off
import locust  # first: it patches the process for gevent

# isort: on
from loadtests.locust_ui.triton_user import TritonUser

QUERIES = ("play some jazz", "put on some saxophone music", "will it rain tomorrow")


class SearchSession(TritonUser):
    """Looks for something, reads for a moment, and asks for more of the same."""

    wait_time = locust.between(0.5, 2)
    number = 0

    @locust.task  # type: ignore[untyped-decorator]
    def search(self) -> None:
        self.number += 1
        query = QUERIES[self.number % len(QUERIES)]
        first = self.ask("text_embedding", text=[query], step="search")["sentence_embedding"]
        more = self.ask("text_embedding", text=[query, f"{query}, please"], step="more like this")["sentence_embedding"]
        assert float(first[0] @ more[0]) > 0.99  # a session may check its answers, too
